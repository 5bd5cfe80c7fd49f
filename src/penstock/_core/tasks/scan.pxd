from libc.stdint cimport int64_t, uint32_t, uint64_t


cdef struct ScannedRecord:
    # The numbers of one record, and its index in the ledger.
    uint64_t number
    int64_t born_ns, since_ns, running_ns, ready_ns
    size_t at
    uint32_t site, steps
    int state


cdef struct Ranked:
    int64_t key
    size_t at


cdef class TaskScan:
    cdef ScannedRecord *records
    cdef size_t count, room, at
    cdef readonly int64_t taken_ns

    cdef int need_room(self, size_t more) except -1
    cdef int64_t key_of(self, const ScannedRecord *record, int key) noexcept nogil
    cdef size_t choose(
        self, Ranked *chosen, size_t limit, int key, bint descending, const unsigned char *wanted
    ) noexcept nogil
    cdef object row_at(self, size_t at)
