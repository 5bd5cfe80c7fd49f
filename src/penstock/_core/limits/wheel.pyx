"""The timer wheel: deadlines of connections, armed, moved and cancelled in O(1), without an allocation.

It is coarse: nothing is due early, or later than one tick after its time and the end of the turn that runs then. A
slot holds the ticks that are the same modulo the wheel's size; what is a revolution away is met and left there. Which
slots hold anything is a few words, so that the loop sleeps until the next that does, and for ever when there is none.

Ownership: the wheel owns its slots and borrows the rest; the owner of a `WheelEntry` cancels it before it goes.
"""

from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint64_t

cdef extern from *:
    int trailing_zeros "__builtin_ctzll"(unsigned long long word) noexcept

cdef int64_t NEVER_NS = <int64_t>1 << 62


cdef class Wheel:
    """Deadlines by tick; `tick_ns` nanoseconds each."""

    def __cinit__(self, int64_t tick_ns=100_000_000):
        self.tick_ns, self.next_ns = tick_ns, NEVER_NS

    def __dealloc__(self):
        PyMem_Free(self.slots)

    cdef int prepare(self) except -1:
        cdef int i
        self.slots = <WheelEntry *>PyMem_Calloc(SLOTS + 1, sizeof(WheelEntry))
        if self.slots is NULL:
            raise MemoryError
        for i in range(SLOTS + 1):
            self.slots[i].next = self.slots[i].previous = &self.slots[i]
        return 0

    cdef int arm(self, WheelEntry *due, int64_t at_ns) except -1:
        """Set or move a deadline. A time in the past is due at the next tick."""
        cdef int64_t tick = max((at_ns + self.tick_ns - 1) // self.tick_ns, self.tick + 1)
        if self.slots is NULL:
            self.prepare()
        if is_armed(due):
            if due.tick == tick:
                return 0
            self.cancel(due)
        due.tick = tick
        self.link(due, &self.slots[tick & (SLOTS - 1)])
        self.full[(tick & (SLOTS - 1)) >> 6] |= <uint64_t>1 << (tick & 63)
        self.count += 1
        self.next_ns = min(self.next_ns, tick * self.tick_ns)
        return 0

    cdef int cancel(self, WheelEntry *due) noexcept:
        """Disarm an entry; do nothing if it is not armed."""
        cdef int slot = <int>(due.tick & (SLOTS - 1))
        if not is_armed(due):
            return 0
        due.previous.next, due.next.previous = due.next, due.previous
        due.next = due.previous = NULL
        if self.slots[slot].next is &self.slots[slot]:
            self.full[slot >> 6] &= ~(<uint64_t>1 << (slot & 63))
        self.count -= 1
        if self.count == 0:
            self.next_ns = NEVER_NS
        return 0

    cdef WheelEntry *pop(self, int64_t now_ns) noexcept:
        """Return the next due timer, disarmed, or NULL; call it until it returns NULL."""
        cdef int64_t now_tick = now_ns // self.tick_ns
        cdef WheelEntry *come
        cdef WheelEntry *due
        if self.slots is NULL:
            self.tick = now_tick
            return NULL
        come = &self.slots[SLOTS]
        while True:
            while come.next is not come:
                due = come.next
                if due.tick <= now_tick:
                    self.cancel(due)
                    return due
                due.previous.next, due.next.previous = due.next, due.previous
                self.link(due, &self.slots[due.tick & (SLOTS - 1)])
                self.full[(due.tick & (SLOTS - 1)) >> 6] |= <uint64_t>1 << (due.tick & 63)
            if not self.advance(now_tick):
                self.next_ns = self.next_full() * self.tick_ns if self.count else NEVER_NS
                return NULL

    cdef int advance(self, int64_t tick) noexcept:
        """Go on to the next slot that holds something; 0 when none is left up to `tick`."""
        cdef int64_t following = self.next_full() if self.count else tick + 1
        cdef WheelEntry *head
        cdef WheelEntry *come = &self.slots[SLOTS]
        # A whole revolution shows all there is.
        if tick - self.tick > SLOTS:
            self.tick = tick - SLOTS
            following = self.next_full()
        if following > tick:
            self.tick = max(self.tick, tick)
            return 0
        self.tick = following
        head = &self.slots[following & (SLOTS - 1)]
        self.full[(following & (SLOTS - 1)) >> 6] &= ~(<uint64_t>1 << (following & 63))
        head.next.previous, head.previous.next = come, come
        come.next, come.previous = head.next, head.previous
        head.next = head.previous = head
        return 1

    cdef int64_t next_full(self) noexcept:
        """Return the first tick after the last one with a full slot; there must be one."""
        cdef int64_t from_tick = self.tick + 1
        cdef int slot = <int>(from_tick & (SLOTS - 1))
        cdef int word = slot >> 6
        cdef uint64_t bits = self.full[word] & (~<uint64_t>0 << (slot & 63))
        cdef int steps
        for steps in range(WORDS + 1):
            if bits:
                return from_tick + ((word * 64 + trailing_zeros(bits) - slot) & (SLOTS - 1))
            word = (word + 1) & (WORDS - 1)
            bits = self.full[word]
        return from_tick + SLOTS

    cdef void link(self, WheelEntry *due, WheelEntry *head) noexcept:
        due.next, due.previous = head, head.previous
        head.previous.next = due
        head.previous = due

    @property
    def next_at_ns(self):
        """The time of the next check, in nanoseconds; None if nothing is armed."""
        return None if self.next_ns == NEVER_NS else self.next_ns

    def __len__(self):
        return self.count
