from libc.stdint cimport int64_t, uint64_t

cdef enum:
    # Nothing to tell it by has come yet; as any other; it passes.
    UNTOLD
    ORDINARY
    PASSES


cdef class Urgent:
    cdef readonly tuple paths
    # How many have passed.
    cdef readonly uint64_t passed
    # How many may pass at once, and as of when.
    cdef double allowance
    cdef int64_t filled_ns

    cdef int look(self, int fd) noexcept
    cdef int kind(self, const char *data, Py_ssize_t size_bytes) noexcept
    cdef bint has_room(self) noexcept
