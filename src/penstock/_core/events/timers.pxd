from cpython.object cimport PyObject
from libc.stdint cimport uint64_t

from penstock._core.events.handle cimport TimerHandle, TimerQueue
from penstock._core.events.ready cimport Ready


cdef struct Entry:
    double when_s
    # Equal times run in the order they were set.
    uint64_t number
    PyObject *handle


cdef class Timers(TimerQueue):
    # Not used: it makes Cython make a type that the garbage collector looks into.
    cdef object collected
    cdef Entry *entries
    cdef readonly size_t size
    cdef size_t count, cancelled_count
    cdef uint64_t next_number
    # Timers due within so many seconds of the first end one wait.
    cdef public double slack_s

    cdef int add(self, TimerHandle handle) except -1
    cdef int widen(self) except -1
    cdef int resize(self, size_t size) noexcept
    cdef int shrink(self) noexcept
    cdef double wake_s(self) noexcept
    cdef double latest_by(self, double end_s, size_t at, int *looks_left) noexcept
    cdef int fire(self, double end_s, Ready ready) except -1
    cdef int leave(self, TimerHandle handle) except -1
    cdef int drop_cancelled_head(self) except -1
    cdef int compact(self) except -1
    cdef int clear(self) except -1
    cdef PyObject *pop(self) except NULL
    cdef void sift_up(self, size_t at) noexcept
    cdef void sift_down(self, size_t at) noexcept
