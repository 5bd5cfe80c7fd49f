"""The timer wheel: timers that are not due for a while, set and cancelled in O(1) however many are pending.

A tick is a quarter of a second. Level 0 has a slot for each tick of 16 seconds, level 1 slots of 16 seconds, level 2 slots
of 17 minutes, and so on. As time reaches a slot of an upper level, its entries move to the levels below; those of level
0 leave for the timer heap, which orders them. A handle knows its place, so that a cancelled timer leaves at once.

Ownership: the wheel owns its slots and one reference to each handle in it. Nothing here runs Python code.
"""

from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Realloc
from cpython.object cimport PyObject
from libc.math cimport INFINITY
from libc.stdint cimport int64_t, uint32_t, uint64_t

from penstock._core.events.handle cimport TimerHandle, TimerQueue

cdef extern from *:
    int trailing_zeros "__builtin_ctzll"(unsigned long long word) noexcept
    int leading_zeros "__builtin_clzll"(unsigned long long word) noexcept

cdef enum:
    TICKS_PER_S = 4
    # An empty slot keeps the memory of as many entries.
    KEPT_ENTRIES = 32

cdef int64_t END_TICK = <int64_t>1 << (LEVELS * LEVEL_BITS)
END_S = <double>END_TICK / TICKS_PER_S


cdef inline int64_t tick_of(double when_s) noexcept:
    """Return the tick of a time; exact, since a tick is a power of two."""
    if when_s < 0:
        return -1
    return <int64_t>(when_s * TICKS_PER_S) if when_s < END_S else END_TICK


cdef inline int level_of(int64_t tick, int64_t base_tick) noexcept:
    """Return the level of a tick: the highest one at which its slot is not the slot of the base."""
    cdef uint64_t differing = <uint64_t>(tick ^ base_tick)
    return 0 if differing < SLOTS else (63 - leading_zeros(differing)) // LEVEL_BITS


cdef inline int slot_of(int64_t tick, int level) noexcept:
    return <int>(tick >> (level * LEVEL_BITS)) & (SLOTS - 1)


cdef class TimerWheel(TimerQueue):
    """Entries by tick."""

    def __dealloc__(self):
        cdef int i
        if self.slots is not NULL:
            for i in range(LEVELS * SLOTS):
                PyMem_Free(self.slots[i].entries)
            PyMem_Free(self.slots)

    cdef int insert(self, Entry *entry) except -1:
        """Insert an entry of at least `horizon_s` and less than `END_S`; it brings its reference."""
        if self.slots is NULL:
            self.slots = <Slot *>PyMem_Calloc(LEVELS * SLOTS, sizeof(Slot))
            if self.slots is NULL:
                raise MemoryError
        self.put(entry)
        self.far_count += 1
        return 0

    cdef int put(self, Entry *entry) except -1:
        cdef int64_t tick = tick_of(entry.when_s)
        cdef int level = level_of(tick, self.base_tick)
        cdef int at = slot_of(tick, level)
        cdef int index = level * SLOTS + at
        cdef Slot *slot = &self.slots[index]
        if slot.count == slot.size and resize(slot, slot.size + slot.size // 2 + 4) < 0:
            raise MemoryError
        if slot.count == 0:
            self.full[level] |= <uint64_t>1 << at
        if slot.count == 0 or entry.when_s < slot.first_s:
            slot.first_s = entry.when_s
        (<TimerHandle>entry.handle).slot = index
        (<TimerHandle>entry.handle).place = slot.count
        slot.entries[slot.count] = entry[0]
        slot.count += 1
        return 0

    cdef int remove(self, TimerHandle handle) noexcept:
        """Remove a handle's entry; its reference is the caller's."""
        cdef Slot *slot = &self.slots[handle.slot]
        self.far_count -= 1
        slot.count -= 1
        if handle.place != slot.count:
            slot.entries[handle.place] = slot.entries[slot.count]
            (<TimerHandle>slot.entries[handle.place].handle).place = handle.place
        handle.slot = -1
        if slot.count == 0:
            self.emptied(slot)
        elif slot.size > KEPT_ENTRIES and 4 * slot.count < slot.size:
            resize(slot, slot.size // 2)
        return 0

    cdef int settle(self, double now_s) noexcept:
        """Tell an empty wheel the time: from now on it has what comes after the present tick."""
        return self.start_from(tick_of(now_s) + 1) if self.far_count == 0 else 0

    cdef int start_from(self, int64_t tick) noexcept:
        if tick > self.base_tick:
            self.base_tick = min(tick, END_TICK)
            self.horizon_s = <double>self.base_tick / TICKS_PER_S
        return 0

    cdef Slot *due_slot(self, double end_s) except? NULL:
        """Return a slot with entries before `end_s`, for the caller to copy and `take`; NULL: there is none.

        Then every entry before the end of that tick has left the wheel.
        """
        cdef int64_t last_tick = tick_of(end_s)
        cdef int64_t start_tick
        cdef int index
        while True:
            index = self.first_slot(&start_tick) if self.far_count else -1
            if index < 0 or start_tick > last_tick:
                self.start_from(last_tick + 1)
                return NULL
            if index < SLOTS:
                return &self.slots[index]
            self.spill(&self.slots[index], start_tick)

    cdef int take(self, Slot *slot) noexcept:
        """Empty the slot that `due_slot` has returned: its entries have other owners."""
        cdef int64_t tick = (self.base_tick & ~<int64_t>(SLOTS - 1)) | (slot - self.slots)
        self.far_count -= slot.count
        slot.count = 0
        self.emptied(slot)
        return self.start_from(tick + 1)

    cdef int spill(self, Slot *slot, int64_t start_tick) except -1:
        """Move the entries of an upper slot down. Time has reached its start; without memory the rest stays."""
        self.start_from(start_tick)
        while slot.count:
            self.put(&slot.entries[slot.count - 1])
            slot.count -= 1
        return self.emptied(slot)

    cdef int first_slot(self, int64_t *start_tick) noexcept:
        """Return the index of the slot with the earliest start; the highest of several. The wheel is not empty."""
        cdef int level, at, found = -1
        cdef uint64_t pending
        cdef int64_t start
        for level in range(LEVELS):
            at = slot_of(self.base_tick, level)
            pending = self.full[level] >> at
            if not pending:
                continue
            at += trailing_zeros(pending)
            start = self.base_tick >> ((level + 1) * LEVEL_BITS) << ((level + 1) * LEVEL_BITS)
            start |= <int64_t>at << (level * LEVEL_BITS)
            if found < 0 or start <= start_tick[0]:
                found, start_tick[0] = level * SLOTS + at, start
        return found

    cdef int emptied(self, Slot *slot) noexcept:
        cdef int index = <int>(slot - self.slots)
        self.full[index // SLOTS] &= ~(<uint64_t>1 << (index % SLOTS))
        if slot.size > KEPT_ENTRIES:
            resize(slot, KEPT_ENTRIES)
        return 0

    cdef double first_s(self) noexcept:
        """Return a time before which no entry is due, in seconds: the earliest one, unless that was cancelled."""
        cdef double earliest_s = INFINITY
        cdef uint64_t pending
        cdef int level, at
        for level in range(LEVELS):
            at = slot_of(self.base_tick, level)
            pending = self.full[level] >> at
            if pending:
                earliest_s = min(earliest_s, self.slots[level * SLOTS + at + trailing_zeros(pending)].first_s)
        return earliest_s

    cdef PyObject *any_entry(self) noexcept:
        """Return the handle of an entry, borrowed; NULL when there is none."""
        cdef int64_t start_tick
        cdef int index = self.first_slot(&start_tick) if self.far_count else -1
        return NULL if index < 0 else self.slots[index].entries[self.slots[index].count - 1].handle

    cdef int append_to(self, list handles) except -1:
        cdef int i
        cdef uint32_t j
        if self.slots is NULL:
            return 0
        for i in range(LEVELS * SLOTS):
            for j in range(self.slots[i].count):
                handles.append(<object>self.slots[i].entries[j].handle)
        return 0


cdef int resize(Slot *slot, uint32_t size) noexcept:
    """-1 without the memory: nothing has changed."""
    cdef Entry *entries = <Entry *>PyMem_Realloc(slot.entries, size * sizeof(Entry))
    if entries is NULL:
        return -1
    slot.entries, slot.size = entries, size
    return 0
