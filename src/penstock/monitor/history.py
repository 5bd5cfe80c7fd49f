"""The history of one observed process: a bounded series of snapshots, and the findings beside them."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from dataclasses import replace
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from penstock.monitor.figures import Figures, figures

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["History", "Silence"]

# the newest findings are kept
MOST_FINDINGS = 1000


class Silence(NamedTuple):
    """A process that does not answer: for how long, and the kernel's letter for its state, such as T for stopped."""

    lasted_s: float
    state: str = ""


class History:
    """The last snapshots of one process, oldest first, at most `most`, and its findings.

    A partial answer is kept beside them: it has the blocked loops, and no counters for a rate.
    """

    def __init__(self, most: int = 600) -> None:
        self._snapshots: deque[Mapping[str, Any]] = deque(maxlen=most)
        self._series: deque[Figures] = deque(maxlen=most)
        self._findings: deque[Mapping[str, Any]] = deque(maxlen=MOST_FINDINGS)
        self._latest: Mapping[str, Any] | None = None
        # the `mark` for the next request of findings
        self.mark = 0
        # set by a monitor while the process does not answer; the next answer ends it
        self.silence: Silence | None = None

    def __len__(self) -> int:
        return len(self._snapshots)

    @property
    def latest(self) -> Mapping[str, Any] | None:
        """The newest answer, which may be partial; None before the first."""
        return self._latest

    @property
    def latest_whole(self) -> Mapping[str, Any] | None:
        """The newest answer that is not partial; None before the first."""
        return self._snapshots[-1] if self._snapshots else None

    @property
    def findings(self) -> tuple[Mapping[str, Any], ...]:
        """The findings that were added, oldest first."""
        return tuple(self._findings)

    def add(self, snapshot: Mapping[str, Any]) -> None:
        """Add an answer to `snapshot`, partial or not; a process that has restarted begins a new history."""
        if self._latest is not None and self._latest.get("pid") != snapshot.get("pid"):
            self.clear()
        before, self._latest, self.silence = self.latest_whole, snapshot, None
        self._series.append(figures(before, snapshot))
        if not snapshot.get("partial"):
            self._snapshots.append(snapshot)

    def add_findings(self, answer: Mapping[str, Any]) -> None:
        """Add an answer to `findings`. A finding that is reported again, with its whole length, replaces the former."""
        for found in answer.get("findings") or ():
            former = next((each for each in reversed(self._findings) if _same(each, found)), None)
            if former is not None:
                self._findings.remove(former)
            self._findings.append(found)
        self.mark = answer.get("mark", self.mark)

    def clear(self) -> None:
        """Forget everything."""
        self._snapshots.clear()
        self._series.clear()
        self._findings.clear()
        self._latest, self.mark = None, 0

    def over(self, seconds: float) -> Figures:
        """Return the figures of the last `seconds`, or of the shorter history; since the start with one snapshot.

        If the newest answer is partial, they are of the newest whole answer, with the blocked loops of the partial one.
        """
        if self._latest is None:
            return figures(None, {})
        now = self.latest_whole
        if now is None:
            return figures(None, self._latest)
        found = figures(self._before(now, seconds), now)
        return _with_partial(found, self._latest) if self._latest is not now else found

    def _before(self, now: Mapping[str, Any], seconds: float) -> Mapping[str, Any] | None:
        times_s = [each.get("at_s", 0.0) for each in self._snapshots]
        index = max(0, bisect_right(times_s, now.get("at_s", 0.0) - seconds + 1e-6) - 1)
        found = self._snapshots[index]
        return found if found is not now else None

    def series(self, most: int | None = None) -> list[Figures]:
        """Return the figures between each two answers, oldest first, for charts; at most the newest `most`."""
        skipped = 0 if most is None else max(0, len(self._series) - most)
        return list(islice(self._series, skipped, None))

    def findings_over(self, seconds: float) -> list[Mapping[str, Any]]:
        """Return the findings that began in the last `seconds`, oldest first."""
        since_s = (self._latest or {}).get("at_s", 0.0) - seconds
        return [each for each in self._findings if (each.get("since_s") or 0.0) >= since_s]

    def gaps_s(self) -> list[float]:
        """Return the seconds between each two whole snapshots, oldest first."""
        return [later.get("at_s", 0.0) - former.get("at_s", 0.0) for former, later in pairwise(self._snapshots)]


def _same(former: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    """Return whether two findings are one stall, seen again or at its end."""
    if not former.get("kind") == found.get("kind") == "stall":
        return False
    return all(former.get(key) == found.get(key) for key in ("loop", "since_s")) and _is_turn(former) == _is_turn(found)


def _is_turn(stall: Mapping[str, Any]) -> bool:
    return bool((stall.get("evidence") or {}).get("turn"))


def _with_partial(found: Figures, partial: Mapping[str, Any]) -> Figures:
    """Return the figures with the loops' running callbacks as a later partial answer has them."""
    late = figures(None, partial)
    blocked = {each.name: each.blocked for each in late.loops}
    return replace(
        found,
        loops=tuple(replace(each, blocked=blocked.get(each.name, each.blocked)) for each in found.loops),
        at_s=late.at_s,
        wall_time_s=late.wall_time_s,
        partial=True,
        reason=late.reason,
        unread=late.unread,
    )
