"""What a limit is told, and what it answers: the contract between the gate, which counts, and the arithmetic.

The gate closes a window when the limit's `window_s` have passed and `LEAST_SAMPLES` have come, hands it to `update()`,
and enforces the number that comes back. Neither side knows more of the other than this.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["LEAST_SAMPLES", "MOST_SAMPLES", "GrowingLimit", "Limit", "MovingLimit", "Window"]

# A median of fewer says little; more than the most cost time to sort and say nothing new.
LEAST_SAMPLES = 10
MOST_SAMPLES = 512


@dataclass(frozen=True, slots=True)
class Window:
    """What happened at a gate in `duration_s` seconds.

    `rtts_s`: service times after admission, with the loop's lag or without, in seconds, any order; a sample of at most
    `MOST_SAMPLES`, only of entries that began after the window in which the limit last moved, so that what an older
    limit let in says nothing of this one. `begins_s`: when each of them began, in the same order, and `ended_s` when
    the window ended, on the gate's clock; may be left out. `completed` and `dropped` count all that ended in it: in
    order, or for want of time. `most_inflight` is the highest count of permits held at once, `inflight` the count at
    the end; `was_full` says that a call found no permit free.
    """

    duration_s: float
    ended_s: float = 0.0
    rtts_s: Sequence[float] = ()
    begins_s: Sequence[float] = ()
    completed: int = 0
    dropped: int = 0
    most_inflight: int = 0
    inflight: int = 0
    was_full: bool = False

    @property
    def throughput(self) -> float:
        """Completions a second."""
        return self.completed / self.duration_s if self.duration_s > 0 else 0.0

    @property
    def median_s(self) -> float:
        """The middle of the service times, in seconds; the upper one of two. 0.0 without any."""
        return sorted(self.rtts_s)[len(self.rtts_s) // 2] if self.rtts_s else 0.0

    @property
    def mean_s(self) -> float:
        """The mean of the service times, in seconds. 0.0 without any."""
        return sum(self.rtts_s) / len(self.rtts_s) if self.rtts_s else 0.0

    @property
    def held_s(self) -> float:
        """How long a permit is held, by Little's law, in seconds: calls that have not ended count. 0.0 if unknown."""
        return self.inflight / self.throughput if self.completed and self.throughput > 0 else 0.0

    def since(self, begin_s: float) -> Window:
        """This window with the samples of entries that began at that time or later; all, where begins are left out."""
        if len(self.begins_s) != len(self.rtts_s):
            return self
        fresh = [(rtt_s, at_s) for rtt_s, at_s in zip(self.rtts_s, self.begins_s, strict=True) if at_s >= begin_s]
        return replace(self, rtts_s=[rtt_s for rtt_s, _ in fresh], begins_s=[at_s for _, at_s in fresh])

    @property
    def by_begin_s(self) -> list[float]:
        """The service times in the order of their begins; in their own order where those are left out."""
        if len(self.begins_s) != len(self.rtts_s):
            return list(self.rtts_s)
        return [rtt_s for _, rtt_s in sorted(zip(self.begins_s, self.rtts_s, strict=True))]

    def joined(self, later: Window) -> Window:
        """This window and the one right after it, as one."""
        return Window(
            duration_s=self.duration_s + later.duration_s,
            ended_s=later.ended_s,
            rtts_s=(*self.rtts_s, *later.rtts_s)[-MOST_SAMPLES:],
            begins_s=(*self.begins_s, *later.begins_s)[-MOST_SAMPLES:],
            completed=self.completed + later.completed,
            dropped=self.dropped + later.dropped,
            most_inflight=max(self.most_inflight, later.most_inflight),
            inflight=later.inflight,
            was_full=self.was_full or later.was_full,
        )


@runtime_checkable
class Limit(Protocol):
    """How many may be in flight at once, and what moves that number.

    `value` is the number, at least 1; `reason` a short phrase of why it last moved; `window_s` how long a window
    should be, in seconds. `update()` takes a window and returns the new `value`: deterministic, never raises, and
    reads no clock.
    """

    value: int
    reason: str
    window_s: float

    def update(self, window: Window) -> int:
        """Take what happened into account; the number from now on."""
        ...


@runtime_checkable
class GrowingLimit(Limit, Protocol):
    """A limit that may grow within a window, when a call finds no permit free.

    The gate asks a few times in a window.
    """

    def when_full(self, window: Window) -> int:
        """Take in the window so far, which may have no samples. Return the number from now on, which is not lower."""
        ...


class MovingLimit:
    """The base of limits that move: an exact number between two bounds, and the whole number that is enforced.

    `least`, `initial` and `most` are counts of permits, in ascending order from 1; `window_s` is the length of a window
    in seconds. Raises ValueError.
    """

    __slots__ = ("_exact", "_least", "_most", "reason", "value", "window_s")

    def __init__(self, initial: int, least: int, most: int, window_s: float) -> None:
        if not 1 <= least <= initial <= most:
            raise ValueError(f"least = {least}, initial = {initial}, most = {most}: must ascend from 1")
        self.value, self._exact = initial, float(initial)
        self.reason = "initial"
        self.window_s = window_s
        self._least, self._most = least, most

    def _set(self, wanted: float, why: str) -> None:
        """Move to the nearest number within the bounds, with the reason if the enforced number changes."""
        self._exact = max(self._least, min(self._most, wanted))
        if int(self._exact) != self.value:
            self.value, self.reason = int(self._exact), why
