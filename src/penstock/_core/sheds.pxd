from libc.stdint cimport uint64_t

from penstock._core.net.io_context cimport IOContext


cdef class ShedCounts:
    cdef IOContext io
    # Called in each turn with new sheds, None: no listener; and the number of sheds at the last call.
    cdef readonly object on_shed
    cdef uint64_t notified

    cdef uint64_t total(self) noexcept
    cdef int notify(self, object loop) except -1
