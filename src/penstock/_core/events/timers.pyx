"""The timers of a loop: a binary heap of (time, number) for the near ones, over the wheel, which has the far ones.

A timer of the wheel leaves when it is cancelled. One of the heap stays as an empty entry until it comes to the head or
until half of the heap is cancelled and the heap is compacted; one that was set last leaves at once. Times are floats as
asyncio's are: `handle.when()` gives back the very number that was set.

Ownership: heap and wheel own one reference to each handle in them. Dropping a reference may run any code, and that code
may set timers: entries leave first, and are released after.
"""

from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.math cimport INFINITY
from libc.stdint cimport uint32_t

from penstock._core._sys.python cimport set_traverse, visitproc
from penstock._core.events.handle cimport TimerHandle, let_go, new_timer
from penstock._core.events.ready cimport Ready, make_room, push
from penstock._core.events.timer_wheel cimport END_S, LEVELS, SLOTS, Entry, Slot, TimerWheel

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


cdef class Timers(TimerWheel):
    """Timer handles by time."""

    def __dealloc__(self):
        self.clear()
        PyMem_Free(self.entries)

    cdef int add(self, TimerHandle handle) except -1:
        cdef Entry entry = Entry(handle.when_s, self.next_number, <PyObject *>handle)
        if entry.when_s < self.horizon_s or entry.when_s >= END_S:
            self.widen(1)
            self.push(&entry)
        else:
            self.insert(&entry)
        Py_INCREF(handle)
        handle.queue = self
        self.next_number += 1
        self.count += 1
        return 0

    cdef void push(self, Entry *entry) noexcept:
        """Add to the heap, which has room."""
        (<TimerHandle>entry.handle).slot = -1
        self.entries[self.near_count] = entry[0]
        self.near_count += 1
        self.sift_up(self.near_count - 1)

    cdef int widen(self, size_t more) except -1:
        """Make room for so many more in the heap."""
        cdef size_t size = self.size if self.size else 64
        while size < self.near_count + more:
            size *= 2
        if size != self.size and self.resize(size) < 0:
            raise MemoryError
        return 0

    cdef int approach(self, double end_s) except -1:
        """Move to the heap what the wheel has due before `end_s`, and the rest of that tick."""
        cdef Slot *slot = self.due_slot(end_s)
        cdef uint32_t i
        while slot is not NULL:
            self.widen(slot.count)
            for i in range(slot.count):
                self.push(&slot.entries[i])
            self.take(slot)
            slot = self.due_slot(end_s)
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
        while size >= CUT_FROM and 8 * self.near_count < size:
            size //= 2
        if size != self.size:
            self.resize(size)
        return 0

    cdef double wake_s(self, double now_s) except? -1:
        """Return when the loop should wake, in seconds: at the latest time within the slack of the first timer.

        There must be a timer. One alone is not delayed.
        """
        cdef double earliest_s
        cdef int looks_left = MOST_LOOKS
        if now_s > self.horizon_s:
            self.approach(now_s)
        earliest_s = self.earliest_s()
        if self.slack_s <= 0:
            return earliest_s
        # Those of the wheel are looked at when the first is near: they leave it for that.
        if earliest_s + self.slack_s >= self.horizon_s > earliest_s - self.slack_s:
            self.approach(earliest_s + self.slack_s)
            earliest_s = self.earliest_s()
        return self.latest_by(earliest_s + self.slack_s, 0, &looks_left) if self.has_near() else earliest_s

    cdef inline bint has_near(self) noexcept:
        """Return whether the first timer is in the heap."""
        return self.near_count and (self.far_count == 0 or self.entries[0].when_s < self.horizon_s)

    cdef double earliest_s(self) noexcept:
        return self.entries[0].when_s if self.has_near() else self.first_s()

    cdef double latest_by(self, double end_s, size_t at, int *looks_left) noexcept:
        """Return the latest time up to `end_s` at an entry and below; `end_s` when there are too many to look at."""
        cdef double latest_s = self.entries[at].when_s
        cdef size_t child
        looks_left[0] -= 1
        if looks_left[0] < 0:
            return end_s
        for child in range(2 * at + 1, min(2 * at + 3, self.near_count)):
            if self.entries[child].when_s <= end_s:
                latest_s = max(latest_s, self.latest_by(end_s, child, looks_left))
        return latest_s

    cdef int fire(self, double end_s, Ready ready) except -1:
        """Move every timer due before `end_s` to the ready queue, the earliest first."""
        cdef PyObject *first
        if end_s > self.horizon_s:
            self.approach(end_s)
        while self.near_count and self.entries[0].when_s < end_s:
            make_room(ready)
            first = self.pop()
            if not of(first).is_cancelled:
                push(ready, of(first))
            let_go(first)
        return 0

    cdef int leave_wheel(self, TimerHandle handle) except -1:
        self.remove(handle)
        handle.queue = None
        self.count -= 1
        return 0

    cdef int drop_cancelled_head(self) except -1:
        while self.cancelled_count and self.near_count and of(self.entries[0].handle).is_cancelled:
            let_go(self.pop())
        # Others have fired since the last cancellation: the cancelled may be most of what is left.
        if self.cancelled_count > COMPACT_FROM and 2 * self.cancelled_count > self.near_count:
            self.compact()
        return self.shrink()

    cdef int leave(self, TimerHandle handle) except -1:
        handle.queue = None
        self.count -= 1
        if handle.is_cancelled:
            self.cancelled_count -= 1
        return 0

    cdef int cancelled_one(self, TimerHandle handle) except -1:
        if handle.slot >= 0:
            self.leave_wheel(handle)
            # The canceller holds the handle: this is not its end.
            Py_DECREF(handle)
            return 0
        self.cancelled_count += 1
        if self.entries[self.near_count - 1].handle == <PyObject *>handle:
            self.near_count -= 1
            self.leave(handle)
            Py_DECREF(handle)
        elif self.cancelled_count > COMPACT_FROM and 2 * self.cancelled_count > self.near_count:
            self.compact()
        return 0

    cdef int compact(self) except -1:
        """Remove the cancelled entries, and restore the heap."""
        cdef PyObject *dropped = NULL
        cdef PyObject *handle
        cdef size_t kept = 0, i
        for i in range(self.near_count):
            handle = self.entries[i].handle
            if of(handle).is_cancelled:
                of(handle).queue = None
                of(handle).inbox_next = dropped
                dropped = handle
            else:
                self.entries[kept] = self.entries[i]
                kept += 1
        self.count -= self.near_count - kept
        self.near_count, self.cancelled_count = kept, 0
        for i in range(kept // 2, 0, -1):
            self.sift_down(i - 1)
        release_chain(dropped)
        return 0

    cdef int clear(self) except -1:
        cdef PyObject *last
        while self.near_count:
            self.near_count -= 1
            last = self.entries[self.near_count].handle
            self.leave(of(last))
            Py_DECREF(<object>last)
        while self.far_count:
            last = self.any_entry()
            self.leave_wheel(of(last))
            Py_DECREF(<object>last)
        return 0

    cdef PyObject *pop(self) except NULL:
        """Take the earliest out; the caller owns the reference."""
        cdef PyObject *first = self.entries[0].handle
        self.leave(of(first))
        self.near_count -= 1
        if self.near_count:
            self.entries[0] = self.entries[self.near_count]
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
        while child < self.near_count:
            if child + 1 < self.near_count and before(&self.entries[child + 1], &self.entries[child]):
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

    def next_wake(self, double now_s=0.0):
        """Return when the loop should wake, in seconds; infinity without a timer."""
        return self.wake_s(now_s) if self.count else INFINITY

    def snapshot(self):
        """The handles, in no order."""
        cdef list handles = [<object>self.entries[i].handle for i in range(self.near_count)]
        self.append_to(handles)
        return handles

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
    cdef int at
    cdef uint32_t j
    for i in range(self.near_count):
        if visit(self.entries[i].handle, arg):
            return 1
    for at in range(LEVELS * SLOTS if self.far_count else 0):
        for j in range(self.slots[at].count):
            if visit(self.slots[at].entries[j].handle, arg):
                return 1
    return 0


set_traverse(Timers, <void *>traverse)
