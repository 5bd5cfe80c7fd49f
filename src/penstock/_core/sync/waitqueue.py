# cython: annotation_typing=False, nonecheck=True
"""The queue of a gate: waiters by priority class, and within a class by key in round robin.

Native where it is built (`waitqueue.pxd` has the types), this very source elsewhere. Every operation is O(1), the
removal of any waiter included. The queue knows no clock, no limit and no reason: `penstock._core.sync.gate` decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

# relative, so that the plain source finds its plain parts where native ones are built too
from .waiting import Waiter

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["GateWaiter", "KeyQueue", "PriorityClass", "WaitQueue"]

CLASSES = 4


class GateWaiter(Waiter):
    """A waiter of a gate, with its priority class, its key and its times.

    Ownership: the queue owns a waiter while it waits.
    """

    # set by the gate that makes it
    priority: int
    queued_s: float
    arrived_s: float
    deadline_s: float
    entry: Any

    def __init__(self) -> None:
        Waiter.__init__(self)
        # sheds it at its caller's deadline; None: the gate's own timer does
        self.timer: Any = None
        # neighbours by age in the class, and in the key's queue
        self.older: GateWaiter | None = None
        self.newer: GateWaiter | None = None
        self.before: GateWaiter | None = None
        self.after: GateWaiter | None = None
        self.key_queue: KeyQueue | None = None

    def wake(self) -> None:
        """Schedule its task's next step, and cancel its timer."""
        if self.timer is not None:
            self.cancel_timer()
        Waiter.wake(self)

    def abandoned(self) -> None:
        """Cancel its timer and notify the gate: it leaves the queue by itself."""
        if self.timer is not None:
            self.cancel_timer()
        self.owner._abandoned(self)

    def cancel_timer(self) -> None:
        """Cancel the timer of its caller's deadline."""
        self.timer.cancel()
        self.timer = None


class KeyQueue:
    """The waiters of one key in one class, oldest first. A link of the class's rotation."""

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.count = 0
        self.first: GateWaiter | None = None
        self.last: GateWaiter | None = None
        self.previous: KeyQueue | None = None
        self.following: KeyQueue | None = None


class PriorityClass:
    """The waiters of one class: a rotation of key queues, and a list of all waiters by age."""

    def __init__(self) -> None:
        self.count = 0
        self.key_count = 0
        self.oldest: GateWaiter | None = None
        self.newest: GateWaiter | None = None
        # the rotation: the first key queue is served next
        self.first: KeyQueue | None = None
        self.last: KeyQueue | None = None
        self.key_queues: dict[Hashable, KeyQueue] = {}
        # almost always the longest one: updated when a queue grows, and not when it shrinks
        self.longest: KeyQueue | None = None

    def append(self, waiter: GateWaiter) -> None:
        """Put a waiter at the end of its key's queue."""
        queue = self.key_queues.get(waiter.key)
        # an empty queue stays behind when its key changed its hash
        if queue is None or queue.count == 0:
            queue = self.key_queues[waiter.key] = KeyQueue(waiter.key)
            self.link(queue)
        waiter.key_queue = queue
        waiter.before = queue.last
        if queue.last is None:
            queue.first = waiter
        else:
            queue.last.after = waiter
        queue.last = waiter
        queue.count += 1
        waiter.older = self.newest
        if self.newest is None:
            self.oldest = waiter
        else:
            self.newest.newer = waiter
        self.newest = waiter
        self.count += 1
        if self.longest is None or queue.count > self.longest.count:
            self.longest = queue

    def remove(self, waiter: GateWaiter) -> None:
        """Take a waiter out, wherever it stands. Raise LookupError if it is in no queue."""
        queue = waiter.key_queue
        if queue is None:
            raise LookupError("this waiter is in no queue")
        older, newer, before, after = waiter.older, waiter.newer, waiter.before, waiter.after
        if older is None:
            self.oldest = newer
        else:
            older.newer = newer
        if newer is None:
            self.newest = older
        else:
            newer.older = older
        if before is None:
            queue.first = after
        else:
            before.after = after
        if after is None:
            queue.last = before
        else:
            after.before = before
        waiter.older = waiter.newer = waiter.before = waiter.after = waiter.key_queue = None
        self.count -= 1
        queue.count -= 1
        if queue.count == 0:
            self.unlink(queue)
            self.discard(queue.key)
            if self.longest is queue:
                self.longest = self.first

    def discard(self, key: Hashable) -> None:
        """Remove the key's empty queue from the table. The key's own code may fail meanwhile: it then stays."""
        try:
            self.key_queues.pop(key, None)
        except Exception:
            pass

    def link(self, queue: KeyQueue) -> None:
        """Put a key queue at the end of the rotation."""
        queue.previous = self.last
        if self.last is None:
            self.first = queue
        else:
            self.last.following = queue
        self.last = queue
        self.key_count += 1

    def unlink(self, queue: KeyQueue) -> None:
        """Take a key queue out of the rotation."""
        previous, following = queue.previous, queue.following
        if previous is None:
            self.first = following
        else:
            previous.following = following
        if following is None:
            self.last = previous
        else:
            following.previous = previous
        queue.previous = queue.following = None
        self.key_count -= 1

    def pop(self, newest_first: bool) -> GateWaiter:
        """Take out and return the next waiter of the next key queue, and rotate. Raise LookupError if empty."""
        queue = self.first
        waiter = None if queue is None else queue.last if newest_first else queue.first
        if queue is None or waiter is None:
            raise LookupError("no waiter in this class")
        if self.key_count > 1:
            self.unlink(queue)
            self.link(queue)
        self.remove(waiter)
        return waiter

    def fair_share(self, key: Hashable) -> int:
        """Return the fair number of places for a key: the places taken, divided by the keys that have or want one."""
        keys = self.key_count if key in self.key_queues else self.key_count + 1
        return (self.count + keys - 1) // keys

    def queued_of(self, key: Hashable) -> int:
        """Return the number of the key's waiters."""
        queue = self.key_queues.get(key)
        return 0 if queue is None else queue.count

    def count_ahead(self, key: Hashable) -> int:
        """Return the number of waiters before a new one of the key.

        Of each other key, at most one more than of its own is served before it.
        """
        own = self.queued_of(key)
        others = self.key_count - (1 if own else 0)
        return min(self.count, own + (own + 1) * others)


class WaitQueue:
    """All waiters of a gate, in four classes. A class is served before the classes with higher numbers."""

    def __init__(self) -> None:
        self.count = 0
        self.classes = [PriorityClass() for _ in range(CLASSES)]

    def push(self, waiter: GateWaiter) -> None:
        """Put a waiter at the end of its class and key."""
        own_class: PriorityClass = self.classes[waiter.priority]
        own_class.append(waiter)
        self.count += 1

    def remove(self, waiter: GateWaiter) -> None:
        """Take a waiter out, wherever it stands. Raise LookupError if it is in no queue."""
        own_class: PriorityClass = self.classes[waiter.priority]
        own_class.remove(waiter)
        self.count -= 1

    def pop(self, newest_first: bool) -> GateWaiter:
        """Take out and return the next waiter. Raise LookupError if the queue is empty."""
        for each in self.classes:
            if each.count:
                self.count -= 1
                return each.pop(newest_first)
        raise LookupError("no waiter in the queue")

    def critical_count(self) -> int:
        """Return the number of waiters of the highest class."""
        highest: PriorityClass = self.classes[0]
        return highest.count

    def oldest(self) -> GateWaiter | None:
        """Return the waiter that has waited longest, None if there is none."""
        found: GateWaiter | None = None
        for each in self.classes:
            waiter = each.oldest
            if waiter is not None and (found is None or waiter.queued_s < found.queued_s):
                found = waiter
        return found

    def count_ahead(self, priority: int, key: Hashable) -> int:
        """Return the number of waiters before a new one of this class and key."""
        count = 0
        for at in range(priority):
            each: PriorityClass = self.classes[at]
            count += each.count
        each = self.classes[priority]
        return count + each.count_ahead(key)

    def is_over_share(self, priority: int, key: Hashable) -> bool:
        """Return whether one more of the key is more than its fair share; False if no other key waits in the class."""
        own_class: PriorityClass = self.classes[priority]
        own = own_class.queued_of(key)
        return own_class.key_count > (1 if own else 0) and own + 1 > own_class.fair_share(key)

    def newest_of_lowest(self, priority: int) -> GateWaiter | None:
        """Return the newest waiter of the lowest class below `priority`, None if those classes are empty."""
        for at in range(CLASSES - 1, priority, -1):
            each: PriorityClass = self.classes[at]
            if each.count:
                return each.newest
        return None

    def newest_of_longest(self, priority: int, key: Hashable) -> GateWaiter | None:
        """Return the newest waiter of the longest key queue in the class.

        None if that queue is within its fair share, or is the key's own.
        """
        own_class: PriorityClass = self.classes[priority]
        queue = own_class.longest
        if queue is None or queue.key == key or queue.count <= own_class.fair_share(key):
            return None
        return queue.last
