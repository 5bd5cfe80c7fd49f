from libc.stdint cimport int64_t, uint64_t

from penstock._core.events.poller cimport Poller, Source


cdef struct LingeringSlot:
    # -1: it has ended already.
    int fd
    Py_ssize_t left_bytes
    int64_t until_ns


cdef class LingeringConnections(Source):
    cdef Poller poller
    # By age; the place of the one that came as number `n` is `n` modulo `size`.
    cdef LingeringSlot *ring
    cdef uint64_t first, next
    # When the oldest has had its time; NEVER_NS: there is none.
    cdef int64_t next_ns
    # How long one may.
    cdef public int64_t linger_ns
    # At most so many at once; how many there are.
    cdef size_t size
    cdef readonly size_t count
    # How many there ever were; how many of them were closed before their clients had ended.
    cdef readonly uint64_t total, cut

    cdef int add(self, int fd) noexcept
    cdef bint open(self) noexcept
    cdef int enlist(self, int fd, Py_ssize_t left_bytes) noexcept
    cdef int expire(self, int64_t turn_ns) noexcept
    cdef int cut_oldest(self) noexcept
    cdef int end(self, uint64_t number) noexcept
    cdef int retire(self) noexcept
    cdef int close_all(self) noexcept
    cdef int forget(self) except -1
