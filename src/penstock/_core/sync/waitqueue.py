# cython: annotation_typing=False, nonecheck=True
"""Who waits at a gate: waiters in classes, in lines by key inside a class, in the order of their coming.

Native where it is built (`waitqueue.pxd` has the types), this very source elsewhere. Every operation is O(1), the
removal of any waiter among them. Knows no clock, no limit and no reason: `penstock._core.sync.gate` decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

# relative, so that the plain source finds its plain parts where native ones are built too
from .waiting import Waiting

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["Line", "Rank", "WaitQueue", "Waiter"]

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
        self.line: Line | None = None

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


class Line:
    """The waiters of one key in one class, oldest first, and its neighbours in the class's rotation."""

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.count = 0
        self.first: Waiter | None = None
        self.last: Waiter | None = None
        self.behind: Line | None = None
        self.ahead: Line | None = None


class Rank:
    """The waiters of one class: a rotation over lines, and all of them by age."""

    def __init__(self) -> None:
        self.count = 0
        self.line_count = 0
        self.oldest: Waiter | None = None
        self.newest: Waiter | None = None
        # the line whose turn it is; the last one in the rotation
        self.turn: Line | None = None
        self.end: Line | None = None
        self.lines: dict[Hashable, Line] = {}
        # almost always the longest line: it is set by whoever joins a longer one, and not when it shrinks
        self.heaviest: Line | None = None

    def add(self, waiter: Waiter) -> None:
        """Put it at the end of its key's line."""
        line = self.lines.get(waiter.key)
        # an empty one was left behind by a key that could not be found again
        if line is None or line.count == 0:
            line = self.lines[waiter.key] = Line(waiter.key)
            self.join(line)
        waiter.line = line
        waiter.before = line.last
        if line.last is None:
            line.first = waiter
        else:
            line.last.after = waiter
        line.last = waiter
        line.count += 1
        waiter.older = self.newest
        if self.newest is None:
            self.oldest = waiter
        else:
            self.newest.newer = waiter
        self.newest = waiter
        self.count += 1
        if self.heaviest is None or line.count > self.heaviest.count:
            self.heaviest = line

    def drop(self, waiter: Waiter) -> None:
        """Take it out, wherever it stands."""
        line = waiter.line
        if line is None:
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
            line.first = after
        else:
            before.after = after
        if after is None:
            line.last = before
        else:
            after.before = before
        waiter.older = waiter.newer = waiter.before = waiter.after = waiter.line = None
        self.count -= 1
        line.count -= 1
        if line.count == 0:
            self.part(line)
            self.forget(line.key)
            if self.heaviest is line:
                self.heaviest = self.turn

    def forget(self, key: Hashable) -> None:
        """Take the key's empty line out of the table, unless the key's own code now hashes or compares otherwise."""
        try:
            self.lines.pop(key, None)
        except Exception:
            pass

    def join(self, line: Line) -> None:
        """Put the line at the end of the rotation."""
        line.ahead = self.end
        if self.end is None:
            self.turn = line
        else:
            self.end.behind = line
        self.end = line
        self.line_count += 1

    def part(self, line: Line) -> None:
        """Take the line out of the rotation."""
        ahead, behind = line.ahead, line.behind
        if ahead is None:
            self.turn = behind
        else:
            ahead.behind = behind
        if behind is None:
            self.end = ahead
        else:
            behind.ahead = ahead
        line.ahead = line.behind = None
        self.line_count -= 1

    def take(self, newest_first: bool) -> Waiter:
        """The next of the line whose turn it is, out of the queue; the rotation goes on."""
        line = self.turn
        waiter = None if line is None else line.last if newest_first else line.first
        if line is None or waiter is None:
            raise LookupError("nobody waits in this class")
        if self.line_count > 1:
            self.part(line)
            self.join(line)
        self.drop(waiter)
        return waiter

    def share(self, key: Hashable) -> int:
        """How many places are fair for the key: all that are taken, by the keys that have some or want one."""
        lines = self.line_count if key in self.lines else self.line_count + 1
        return (self.count + lines - 1) // lines

    def held(self, key: Hashable) -> int:
        """How many of the key wait."""
        line = self.lines.get(key)
        return 0 if line is None else line.count

    def before_next(self, key: Hashable) -> int:
        """How many would be served before a new one of the key: at most one more of each other than of its own."""
        held = self.held(key)
        others = self.line_count - (1 if held else 0)
        return min(self.count, held + (held + 1) * others)


class WaitQueue:
    """All waiters of a gate: four classes, each served before the lower ones (0 is the highest)."""

    def __init__(self) -> None:
        self.count = 0
        self.ranks = [Rank() for _ in range(CLASSES)]

    def push(self, waiter: Waiter) -> None:
        """Put it at the end of its class and key."""
        rank: Rank = self.ranks[waiter.priority]
        rank.add(waiter)
        self.count += 1

    def remove(self, waiter: Waiter) -> None:
        """Take it out, wherever it stands."""
        rank: Rank = self.ranks[waiter.priority]
        rank.drop(waiter)
        self.count -= 1

    def take(self, newest_first: bool) -> Waiter:
        """The next to be served, out of the queue, which must not be empty."""
        for rank in self.ranks:
            if rank.count:
                self.count -= 1
                return rank.take(newest_first)
        raise IndexError("nobody waits")

    def critical_count(self) -> int:
        """How many of the highest class wait."""
        rank: Rank = self.ranks[0]
        return rank.count

    def oldest(self) -> Waiter | None:
        """Whoever has waited longest."""
        found: Waiter | None = None
        for rank in self.ranks:
            waiter = rank.oldest
            if waiter is not None and (found is None or waiter.queued_s < found.queued_s):
                found = waiter
        return found

    def before_next(self, priority: int, key: Hashable) -> int:
        """How many would be served before a new one of this class and key."""
        count = 0
        for at in range(priority):
            rank: Rank = self.ranks[at]
            count += rank.count
        rank = self.ranks[priority]
        return count + rank.before_next(key)

    def is_over_share(self, priority: int, key: Hashable) -> bool:
        """Whether one more of the key would be more than is fair in its class; never if no other key waits there."""
        rank: Rank = self.ranks[priority]
        held = rank.held(key)
        return rank.line_count > (1 if held else 0) and held + 1 > rank.share(key)

    def lowest_newest(self, priority: int) -> Waiter | None:
        """The newest of the lowest class, if that is below `priority`."""
        for at in range(CLASSES - 1, priority, -1):
            rank: Rank = self.ranks[at]
            if rank.count:
                return rank.newest
        return None

    def heaviest_newest(self, priority: int, key: Hashable) -> Waiter | None:
        """The newest of the longest line in the class, if that has more than its share and is another key's."""
        rank: Rank = self.ranks[priority]
        line = rank.heaviest
        if line is None or line.key == key or line.count <= rank.share(key):
            return None
        return line.last
