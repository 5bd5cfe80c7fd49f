from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint32_t, uint64_t

from penstock._core.events.handle cimport TimerHandle, TimerQueue


cdef enum:
    # Each level has 64 slots; a slot of one level is as long as all slots of the level below it.
    LEVELS = 6
    LEVEL_BITS = 6
    SLOTS = 64


# A later time is in no slot: 544 years.
cdef double END_S


cdef struct Entry:
    double when_s
    # Equal times run in the order they were set.
    uint64_t number
    PyObject *handle


cdef struct Slot:
    Entry *entries
    uint32_t count, size
    # No entry is earlier.
    double first_s


cdef class TimerWheel(TimerQueue):
    # Not used: it makes Cython make a type that the garbage collector looks into.
    cdef object collected
    # Made when the first entry comes.
    cdef Slot *slots
    # Which slots have entries.
    cdef uint64_t[LEVELS] full
    # The first tick that is not over, and its time: earlier timers are not in the wheel.
    cdef int64_t base_tick
    cdef double horizon_s
    cdef readonly size_t far_count

    cdef int insert(self, Entry *entry) except -1
    cdef int put(self, Entry *entry) except -1
    cdef int remove(self, TimerHandle handle) noexcept
    cdef int settle(self, double now_s) noexcept
    cdef Slot *due_slot(self, double end_s) except? NULL
    cdef int take(self, Slot *slot) noexcept
    cdef int spill(self, Slot *slot, int64_t start_tick) except -1
    cdef int first_slot(self, int64_t *start_tick) noexcept
    cdef int start_from(self, int64_t tick) noexcept
    cdef int emptied(self, Slot *slot) noexcept
    cdef double first_s(self) noexcept
    cdef PyObject *any_entry(self) noexcept
    cdef int append_to(self, list handles) except -1
