"""The timer heap: a binary heap of (time, number), cancelled in O(1), compacted when half of it is cancelled.

A cancelled timer stays as an empty entry until it comes to the head or until the heap is compacted; one that was set
last, the usual fate of a timeout, leaves at once. Times are floats as asyncio's are: `handle.when()` gives back the
very number that was set.

Ownership: the heap owns one reference to each handle in it. Dropping a reference may run any code, and that code may
set timers: entries leave the heap first, and are released after.
"""

from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.math cimport INFINITY

from penstock._core._sys.python cimport set_traverse, visitproc
from penstock._core.events.handle cimport TimerHandle, TimerQueue, let_go, new_timer
from penstock._core.events.ready cimport Ready, make_room, push

cdef enum:
    # As asyncio: fewer cancelled entries are not worth a pass over the heap.
    COMPACT_FROM = 100
    # The smallest size that is ever cut.
    CUT_FROM = 1024
    # How many timers are looked at for the latest within the slack.
    MOST_LOOKS = 32


cdef inline bint before(Entry *a, Entry *b) noexcept:
    return a.when_s < b.when_s or (a.when_s == b.when_s and a.number < b.number)


cdef inline TimerHandle of(PyObject *handle):
    return <TimerHandle>handle


cdef class Timers(TimerQueue):
    """Timer handles by time."""

    def __dealloc__(self):
        self.clear()
        PyMem_Free(self.entries)

    cdef int add(self, TimerHandle handle) except -1:
        if self.count == self.size:
            self.widen()
        Py_INCREF(handle)
        handle.queue = self
        self.entries[self.count] = Entry(handle.when_s, self.next_number, <PyObject *>handle)
        self.next_number += 1
        self.count += 1
        self.sift_up(self.count - 1)
        return 0

    cdef int widen(self) except -1:
        if self.resize(2 * self.size if self.size else 64) < 0:
            raise MemoryError
        return 0

    cdef int resize(self, size_t size) noexcept:
        """-1 without the memory: nothing has changed."""
        cdef Entry *entries = <Entry *>PyMem_Realloc(self.entries, size * sizeof(Entry))
        if entries is NULL:
            return -1
        self.entries, self.size = entries, size
        return 0

    cdef int shrink(self) noexcept:
        """Fit a heap that is used to an eighth; it was filled to the half, so each timer pays O(1) for that."""
        cdef size_t size = self.size
        while size >= CUT_FROM and 8 * self.count < size:
            size //= 2
        if size != self.size:
            self.resize(size)
        return 0

    cdef double wake_s(self) noexcept:
        """Return when the loop should wake, in seconds: at the latest time within the slack of the first timer.

        The heap must not be empty. A timer alone is not delayed.
        """
        cdef double first_s = self.entries[0].when_s
        cdef int looks_left = MOST_LOOKS
        return self.latest_by(first_s + self.slack_s, 0, &looks_left) if self.slack_s > 0 else first_s

    cdef double latest_by(self, double end_s, size_t at, int *looks_left) noexcept:
        """Return the latest time up to `end_s` at an entry and below; `end_s` when there are too many to look at."""
        cdef double latest_s = self.entries[at].when_s
        cdef size_t child
        looks_left[0] -= 1
        if looks_left[0] < 0:
            return end_s
        for child in range(2 * at + 1, min(2 * at + 3, self.count)):
            if self.entries[child].when_s <= end_s:
                latest_s = max(latest_s, self.latest_by(end_s, child, looks_left))
        return latest_s

    cdef int fire(self, double end_s, Ready ready) except -1:
        """Move every timer due before `end_s` to the ready queue, the earliest first."""
        cdef PyObject *first
        while self.count and self.entries[0].when_s < end_s:
            make_room(ready)
            first = self.pop()
            if not of(first).is_cancelled:
                push(ready, of(first))
            let_go(first)
        return 0

    cdef int drop_cancelled_head(self) except -1:
        while self.cancelled_count and self.count and of(self.entries[0].handle).is_cancelled:
            let_go(self.pop())
        # Others have fired since the last cancellation: the cancelled may be most of what is left.
        if self.cancelled_count > COMPACT_FROM and 2 * self.cancelled_count > self.count:
            self.compact()
        return self.shrink()

    cdef int leave(self, TimerHandle handle) except -1:
        handle.queue = None
        if handle.is_cancelled:
            self.cancelled_count -= 1
        return 0

    cdef int cancelled_one(self, TimerHandle handle) except -1:
        self.cancelled_count += 1
        if self.entries[self.count - 1].handle == <PyObject *>handle:
            self.count -= 1
            self.leave(handle)
            # The canceller holds the handle: this is not its end.
            Py_DECREF(handle)
        elif self.cancelled_count > COMPACT_FROM and 2 * self.cancelled_count > self.count:
            self.compact()
        return 0

    cdef int compact(self) except -1:
        """Remove the cancelled entries, and restore the heap."""
        cdef PyObject *dropped = NULL
        cdef PyObject *handle
        cdef size_t kept = 0, i
        for i in range(self.count):
            handle = self.entries[i].handle
            if of(handle).is_cancelled:
                of(handle).queue = None
                of(handle).inbox_next = dropped
                dropped = handle
            else:
                self.entries[kept] = self.entries[i]
                kept += 1
        self.count, self.cancelled_count = kept, 0
        for i in range(kept // 2, 0, -1):
            self.sift_down(i - 1)
        release_chain(dropped)
        return 0

    cdef int clear(self) except -1:
        cdef PyObject *last
        while self.count:
            self.count -= 1
            last = self.entries[self.count].handle
            self.leave(of(last))
            Py_DECREF(<object>last)
        return 0

    cdef PyObject *pop(self) except NULL:
        """Take the earliest out; the caller owns the reference."""
        cdef PyObject *first = self.entries[0].handle
        self.leave(of(first))
        self.count -= 1
        if self.count:
            self.entries[0] = self.entries[self.count]
            self.sift_down(0)
        return first

    cdef void sift_up(self, size_t at) noexcept:
        cdef Entry entry = self.entries[at]
        cdef size_t parent
        while at:
            parent = (at - 1) // 2
            if not before(&entry, &self.entries[parent]):
                break
            self.entries[at] = self.entries[parent]
            at = parent
        self.entries[at] = entry

    cdef void sift_down(self, size_t at) noexcept:
        cdef Entry entry = self.entries[at]
        cdef size_t child = 2 * at + 1
        while child < self.count:
            if child + 1 < self.count and before(&self.entries[child + 1], &self.entries[child]):
                child += 1
            if not before(&self.entries[child], &entry):
                break
            self.entries[at] = self.entries[child]
            at, child = child, 2 * child + 1
        self.entries[at] = entry

    def set(self, double when_s, loop, callback):
        """Set a timer; give its handle."""
        cdef TimerHandle handle = new_timer(when_s, loop, callback, NULL, 0, None)
        self.add(handle)
        return handle

    def due(self, double end_s):
        """Take the handles due before `end_s`, the earliest first."""
        cdef Ready ready = Ready()
        self.fire(end_s, ready)
        return ready.snapshot()

    def next_wake(self):
        """Return when the loop should wake, in seconds; infinity without a timer."""
        return self.wake_s() if self.count else INFINITY

    def snapshot(self):
        """The handles in the heap, in no order."""
        return [<object>self.entries[i].handle for i in range(self.count)]

    def __len__(self):
        return self.count


cdef int release_chain(PyObject *handle) except -1:
    cdef PyObject *following
    while handle is not NULL:
        following = of(handle).inbox_next
        of(handle).inbox_next = NULL
        let_go(handle)
        handle = following
    return 0


cdef int traverse(Timers self, visitproc visit, void *arg) noexcept:
    """For the garbage collector: a loop that is dropped unclosed is reachable from itself through here."""
    cdef size_t i
    for i in range(self.count):
        if visit(self.entries[i].handle, arg):
            return 1
    return 0


set_traverse(Timers, <void *>traverse)
