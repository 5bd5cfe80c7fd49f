from libc.stdint cimport int64_t, uint64_t

from penstock._core.monitor.text cimport Text
from penstock._core.tasks.heartbeat cimport Heartbeat

cdef enum:
    NAME_BYTES = 64
    # Loops that one answer shows.
    MOST_LOOPS = 64


cdef struct FollowedLoop:
    # Pointers into the heartbeat, which the server keeps as long.
    const int64_t *turn_since_ns
    const int64_t *callback_since_ns
    const uint64_t *turn_number
    const unsigned long *thread_id
    const int *native_id
    const int *cpu_clock
    char[NAME_BYTES] name
    FollowedLoop *next


cdef struct LoopReading:
    # The words of one loop at one moment.
    int64_t turn_since_ns, callback_since_ns, cpu_ns
    uint64_t turn_number
    unsigned long thread_id
    int native_id
    char[NAME_BYTES] name


cdef struct StackSignal:
    # The signal whose handler writes every thread's stack to `fd`, and that handler; 0: there is none.
    int number, fd
    void *handler
    # The server's thread that makes answers.
    int answering


cdef FollowedLoop *new_followed(Heartbeat heartbeat, bytes name) except NULL
cdef int read_loops(const FollowedLoop *loops, LoopReading *found) noexcept nogil
cdef void put_partial_answer(
    Text *text, const LoopReading *loops, int loop_count, int pid, int64_t waited_ns, const StackSignal *stacks
) noexcept nogil
