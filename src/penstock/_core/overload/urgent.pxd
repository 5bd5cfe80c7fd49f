from libc.stdint cimport int64_t, uint64_t

cdef enum:
    # Nothing to tell it by has come yet; as any other; it passes.
    UNDECIDED
    ORDINARY
    URGENT


cdef class UrgentRequests:
    cdef readonly tuple paths
    # How many have admitted.
    cdef readonly uint64_t admitted
    # How many may pass at once, and as of when.
    cdef double allowance
    cdef int64_t filled_ns

    cdef int peek(self, int fd) noexcept
    cdef int classify(self, const char *data, Py_ssize_t size_bytes) noexcept
    cdef bint take_allowance(self) noexcept
