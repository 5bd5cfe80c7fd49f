/* A mark for callgrind: what has been counted since the last one is written to a file, under this name. */
#include <valgrind/callgrind.h>

void mark(const char *name) { CALLGRIND_DUMP_STATS_AT(name); }
