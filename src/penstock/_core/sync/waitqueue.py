# cython: annotation_typing=False, nonecheck=True
"""Who waits at a gate: waiters in classes, in queues by key inside a class, in the order of their coming.

Native where it is built (`waitqueue.pxd` has the types), this very source elsewhere. Every operation is O(1), the
removal of any waiter among them. Knows no clock, no limit and no reason: `penstock._core.sync.gate` decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

# relative, so that the plain source finds its plain parts where native ones are built too
from .waiting import Waiting

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["KeyQueue", "PriorityClass", "WaitQueue", "Waiter"]

CLASSES = 4


class Waiter(Waiting):
    """One that waits at a gate, its owner, as what it came as: its class, its key, and its times.

    The queue owns it while it waits.
    """

    # set by whoever makes it
    priority: int
    queued_s: float
    arrived_s: float
    deadline_s: float
    entry: Any

    def __init__(self) -> None:
        Waiting.__init__(self)
        # when it is refused whoever is before it; None: with the others
        self.timer: Any = None
        self.older: Waiter | None = None
        self.newer: Waiter | None = None
        self.before: Waiter | None = None
        self.after: Waiter | None = None
        self.queue: KeyQueue | None = None

    def wake(self) -> None:
        """It waits no longer: its task runs in the next turn."""
        if self.timer is not None:
            self.stop_timer()
        Waiting.wake(self)

    def gave_up(self) -> None:
        """It leaves the queue by itself."""
        if self.timer is not None:
            self.stop_timer()
        self.owner._gave_up(self)

    def stop_timer(self) -> None:
        """Nothing is to end its wait any more."""
        self.timer.cancel()
        self.timer = None


class KeyQueue:
    """The waiters of one key in one class, oldest first, and its neighbours in the class's rotation."""

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.count = 0
        self.first: Waiter | None = None
        self.last: Waiter | None = None
        self.behind: KeyQueue | None = None
        self.ahead: KeyQueue | None = None


class PriorityClass:
    """The waiters of one class: a rotation over queues, and all of them by age."""

    def __init__(self) -> None:
        self.count = 0
        self.key_count = 0
        self.oldest: Waiter | None = None
        self.newest: Waiter | None = None
        # the queue whose next_queue it is; the last one in the rotation
        self.next_queue: KeyQueue | None = None
        self.last_queue: KeyQueue | None = None
        self.queues: dict[Hashable, KeyQueue] = {}
        # almost always the longest queue: it is set by whoever joins a longer one, and not when it shrinks
        self.heaviest: KeyQueue | None = None

    def add(self, waiter: Waiter) -> None:
        """Put it at the end of its key's queue."""
        queue = self.queues.get(waiter.key)
        # an empty one was left behind by a key that could not be found again
        if queue is None or queue.count == 0:
            queue = self.queues[waiter.key] = KeyQueue(waiter.key)
            self.link(queue)
        waiter.queue = queue
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
        if self.heaviest is None or queue.count > self.heaviest.count:
            self.heaviest = queue

    def remove(self, waiter: Waiter) -> None:
        """Take it out, wherever it stands."""
        queue = waiter.queue
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
        waiter.older = waiter.newer = waiter.before = waiter.after = waiter.queue = None
        self.count -= 1
        queue.count -= 1
        if queue.count == 0:
            self.unlink(queue)
            self.forget(queue.key)
            if self.heaviest is queue:
                self.heaviest = self.next_queue

    def forget(self, key: Hashable) -> None:
        """Take the key's empty queue out of the table, unless the key's own code now hashes or compares otherwise."""
        try:
            self.queues.pop(key, None)
        except Exception:
            pass

    def link(self, queue: KeyQueue) -> None:
        """Put the queue at the end of the rotation."""
        queue.ahead = self.last_queue
        if self.last_queue is None:
            self.next_queue = queue
        else:
            self.last_queue.behind = queue
        self.last_queue = queue
        self.key_count += 1

    def unlink(self, queue: KeyQueue) -> None:
        """Take the queue out of the rotation."""
        ahead, behind = queue.ahead, queue.behind
        if ahead is None:
            self.next_queue = behind
        else:
            ahead.behind = behind
        if behind is None:
            self.last_queue = ahead
        else:
            behind.ahead = ahead
        queue.ahead = queue.behind = None
        self.key_count -= 1

    def take(self, newest_first: bool) -> Waiter:
        """The next of the queue whose next_queue it is, out of the queue; the rotation goes on."""
        queue = self.next_queue
        waiter = None if queue is None else queue.last if newest_first else queue.first
        if queue is None or waiter is None:
            raise LookupError("nobody waits in this class")
        if self.key_count > 1:
            self.unlink(queue)
            self.link(queue)
        self.remove(waiter)
        return waiter

    def share(self, key: Hashable) -> int:
        """How many places are fair for the key: all that are taken, by the keys that have some or want one."""
        queues = self.key_count if key in self.queues else self.key_count + 1
        return (self.count + queues - 1) // queues

    def queued(self, key: Hashable) -> int:
        """How many of the key wait."""
        queue = self.queues.get(key)
        return 0 if queue is None else queue.count

    def before_next(self, key: Hashable) -> int:
        """How many would be served before a new one of the key: at most one more of each other than of its own."""
        queued = self.queued(key)
        others = self.key_count - (1 if queued else 0)
        return min(self.count, queued + (queued + 1) * others)


class WaitQueue:
    """All waiters of a gate: four classes, each served before the lower ones (0 is the highest)."""

    def __init__(self) -> None:
        self.count = 0
        self.classes = [PriorityClass() for _ in range(CLASSES)]

    def push(self, waiter: Waiter) -> None:
        """Put it at the end of its class and key."""
        one_class: PriorityClass = self.classes[waiter.priority]
        one_class.add(waiter)
        self.count += 1

    def remove(self, waiter: Waiter) -> None:
        """Take it out, wherever it stands."""
        one_class: PriorityClass = self.classes[waiter.priority]
        one_class.remove(waiter)
        self.count -= 1

    def take(self, newest_first: bool) -> Waiter:
        """The next to be served, out of the queue, which must not be empty."""
        for one_class in self.classes:
            if one_class.count:
                self.count -= 1
                return one_class.take(newest_first)
        raise IndexError("nobody waits")

    def critical_count(self) -> int:
        """How many of the highest class wait."""
        one_class: PriorityClass = self.classes[0]
        return one_class.count

    def oldest(self) -> Waiter | None:
        """Whoever has waited longest."""
        found: Waiter | None = None
        for one_class in self.classes:
            waiter = one_class.oldest
            if waiter is not None and (found is None or waiter.queued_s < found.queued_s):
                found = waiter
        return found

    def before_next(self, priority: int, key: Hashable) -> int:
        """How many would be served before a new one of this class and key."""
        count = 0
        for at in range(priority):
            one_class: PriorityClass = self.classes[at]
            count += one_class.count
        one_class = self.classes[priority]
        return count + one_class.before_next(key)

    def is_over_share(self, priority: int, key: Hashable) -> bool:
        """Whether one more of the key would be more than is fair in its class; never if no other key waits there."""
        one_class: PriorityClass = self.classes[priority]
        queued = one_class.queued(key)
        return one_class.key_count > (1 if queued else 0) and queued + 1 > one_class.share(key)

    def lowest_newest(self, priority: int) -> Waiter | None:
        """The newest of the lowest class, if that is below `priority`."""
        for at in range(CLASSES - 1, priority, -1):
            one_class: PriorityClass = self.classes[at]
            if one_class.count:
                return one_class.newest
        return None

    def heaviest_newest(self, priority: int, key: Hashable) -> Waiter | None:
        """The newest of the longest queue in the class, if that has more than its share and is another key's."""
        one_class: PriorityClass = self.classes[priority]
        queue = one_class.heaviest
        if queue is None or queue.key == key or queue.count <= one_class.share(key):
            return None
        return queue.last
