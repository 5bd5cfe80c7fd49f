"""The flight recorder: a ring of the newest events of tasks, 40 bytes each, written in a few nanoseconds.

Ownership: its events, plain numbers, no references. Only code that holds the GIL touches it.
"""

from penstock._core.tasks.rows import FlightRow

from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy

from penstock._core._sys.python cimport row


cdef class FlightRecorder:
    """The newest events, `size` of them; a power of two."""

    def __cinit__(self, uint64_t size):
        if size == 0 or size & (size - 1):
            raise ValueError(f"a ring's size is a power of two, not {size}")
        self.events = <FlightEvent *>PyMem_Calloc(size, sizeof(FlightEvent))
        if self.events is NULL:
            raise MemoryError
        self.mask = size - 1

    def __dealloc__(self):
        PyMem_Free(self.events)

    def read(self, int64_t since_ns):
        """Return a `FlightRow` for each event that ended at `since_ns` or later, in the order of writing."""
        return self.read_range(since_ns, 0, self.written)

    def copy(self):
        """Return a recorder with the same events, which nothing overwrites."""
        cdef FlightRecorder other = FlightRecorder(self.mask + 1)
        memcpy(other.events, self.events, (self.mask + 1) * sizeof(FlightEvent))
        other.written = self.written
        return other

    def read_range(self, int64_t since_ns, uint64_t first, uint64_t end):
        """Return a `FlightRow` for each event from number `first` to before `end` that ended at `since_ns` or later.

        Events are numbered from 0 in the order of writing; an overwritten event is left out.
        """
        cdef uint64_t at
        found = []
        for at in range(max(first, self.overwritten), min(end, self.written)):
            event = self.events[at & self.mask]
            if event.at_ns + event.took_ns >= since_ns:
                found.append(row(
                    FlightRow, (event.kind, event.at_ns, event.took_ns, event.task, event.site, event.detail)
                ))
        return found

    @property
    def overwritten(self):
        """The number of events that newer ones have overwritten."""
        return self.written - self.mask - 1 if self.written > self.mask + 1 else 0
