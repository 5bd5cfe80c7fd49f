# The monotonic clock, in nanoseconds: the clock of `time.monotonic()`.
from libc.stdint cimport int64_t

cdef extern from "<time.h>" nogil:
    enum:
        CLOCK_MONOTONIC
    struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int clock_id, timespec *now)


cdef inline int64_t now_ns() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <int64_t>now.tv_sec * 1000000000 + now.tv_nsec


cdef inline double now_s() noexcept nogil:
    """The very float `time.monotonic()` gives: CPython divides the nanoseconds by 1e9, as here."""
    return <double>now_ns() / 1e9
