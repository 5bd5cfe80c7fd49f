from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint64_t

cdef enum:
    SLOTS = 512
    WORDS = SLOTS // 64


cdef struct WheelEntry:
    WheelEntry *next
    WheelEntry *previous
    # The owner, borrowed.
    PyObject *owner
    int64_t tick


cdef class Wheel:
    # Heads of circles, made with the first that is armed; the last one is of those whose tick has come.
    cdef WheelEntry *slots
    cdef uint64_t[WORDS] full
    cdef readonly int64_t tick_ns
    # The last tick that was looked at.
    cdef int64_t tick
    # When the next may be due: never too late, at times too early.
    cdef int64_t next_ns
    cdef size_t count

    cdef int arm(self, WheelEntry *due, int64_t at_ns) except -1
    cdef int cancel(self, WheelEntry *due) noexcept
    cdef WheelEntry *pop(self, int64_t now_ns) noexcept
    cdef int advance(self, int64_t tick) noexcept
    cdef int64_t next_full(self) noexcept
    cdef int prepare(self) except -1
    cdef void link(self, WheelEntry *due, WheelEntry *head) noexcept


cdef inline bint is_armed(WheelEntry *due) noexcept:
    return due.next is not NULL
