from cpython.object cimport PyObject
from libc.stdint cimport uint64_t

from penstock._core.events.handle cimport TimerHandle
from penstock._core.events.ready cimport Ready
from penstock._core.events.timer_wheel cimport Entry, TimerWheel


cdef class Timers(TimerWheel):
    cdef Entry *entries
    cdef readonly size_t size
    # Of the heap; the cancelled ones among them; of heap and wheel.
    cdef size_t near_count, cancelled_count, count
    cdef uint64_t next_number
    # Timers due within so many seconds of the first end one wait.
    cdef public double slack_s

    cdef int add(self, TimerHandle handle) except -1
    cdef void push(self, Entry *entry) noexcept
    cdef int widen(self, size_t more) except -1
    cdef int approach(self, double end_s) except -1
    cdef int resize(self, size_t size) noexcept
    cdef int shrink(self) noexcept
    cdef double wake_s(self, double now_s) except? -1
    cdef bint has_near(self) noexcept
    cdef double earliest_s(self) noexcept
    cdef double latest_by(self, double end_s, size_t at, int *looks_left) noexcept
    cdef int fire(self, double end_s, Ready ready) except -1
    cdef int leave(self, TimerHandle handle) except -1
    cdef int leave_wheel(self, TimerHandle handle) except -1
    cdef int drop_cancelled_head(self) except -1
    cdef int compact(self) except -1
    cdef int clear(self) except -1
    cdef PyObject *pop(self) except NULL
    cdef void sift_up(self, size_t at) noexcept
    cdef void sift_down(self, size_t at) noexcept
