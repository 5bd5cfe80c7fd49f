from libc.stdint cimport int64_t, uint64_t

cdef enum:
    # too few bytes have come; as any other request; it passes the backlog
    UNDECIDED
    ORDINARY
    URGENT


cdef class UrgentRequests:
    cdef readonly tuple paths
    # The number of requests that have passed.
    cdef readonly uint64_t admitted
    # The number that may pass now, and the time of that.
    cdef double allowance
    cdef int64_t filled_ns

    cdef int peek(self, int fd) noexcept
    cdef int classify(self, const char *data, Py_ssize_t size_bytes) noexcept
    cdef bint take_allowance(self) noexcept
