"""The interface between a gate and its limit: windows of counts and samples, and the limit's value.

The gate closes a window when the limit's `window_s` have passed and `LEAST_SAMPLES` samples have been taken, passes it
to `update()` and enforces the returned value. Gate and limit share nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["LEAST_SAMPLES", "MOST_SAMPLES", "GrowingLimit", "Limit", "MovingLimit", "Window"]

# A median of fewer samples is unreliable; more samples cost time to sort and do not improve it.
LEAST_SAMPLES = 10
MOST_SAMPLES = 512


@dataclass(frozen=True, slots=True)
class Window:
    """The counts and samples of a gate in `duration_s` seconds.

    `rtts_s` has at most `MOST_SAMPLES` service times after admission in seconds, in any order, with the loop's lag or
    without. Only entries that began after the window in which the limit last moved have a sample, so that all samples
    belong to the present limit. `begins_s` has their begins in the same order, and `ended_s` is the window's end, both
    in seconds on the gate's clock; they may be left out. `completed` and `dropped` count the entries that ended in the
    window, in order or for lack of time. `most_inflight` is the highest count of permits held at once and `inflight`
    the count at the end. `was_full` is true if a call found no free permit.
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
        """The count of completed entries a second."""
        return self.completed / self.duration_s if self.duration_s > 0 else 0.0

    @property
    def median_s(self) -> float:
        """The median service time in seconds, the upper one of two; 0.0 without samples."""
        return sorted(self.rtts_s)[len(self.rtts_s) // 2] if self.rtts_s else 0.0

    @property
    def mean_s(self) -> float:
        """The mean service time in seconds; 0.0 without samples."""
        return sum(self.rtts_s) / len(self.rtts_s) if self.rtts_s else 0.0

    @property
    def held_s(self) -> float:
        """The time for which a permit is held, in seconds, by Little's law, unended calls included; 0.0 if unknown."""
        return self.inflight / self.throughput if self.completed and self.throughput > 0 else 0.0

    def since(self, begin_s: float) -> Window:
        """Return this window with only the samples of entries that began at `begin_s` or later, in seconds.

        All samples are kept if begins are left out.
        """
        if len(self.begins_s) != len(self.rtts_s):
            return self
        fresh = [(rtt_s, at_s) for rtt_s, at_s in zip(self.rtts_s, self.begins_s, strict=True) if at_s >= begin_s]
        return replace(self, rtts_s=[rtt_s for rtt_s, _ in fresh], begins_s=[at_s for _, at_s in fresh])

    @property
    def by_begin_s(self) -> list[float]:
        """The service times in seconds, ordered by begin; in their own order if begins are left out."""
        if len(self.begins_s) != len(self.rtts_s):
            return list(self.rtts_s)
        return [rtt_s for _, rtt_s in sorted(zip(self.begins_s, self.rtts_s, strict=True))]

    def joined(self, later: Window) -> Window:
        """Return this window joined with `later`, the window right after it."""
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
    """The interface of a limit: a count of permits, and the rule that moves it.

    `value` is the count, at least 1; `reason` is a short phrase that says why it last moved; `window_s` is the wanted
    length of a window in seconds. `update()` is deterministic, never raises and reads no clock.
    """

    value: int
    reason: str
    window_s: float

    def update(self, window: Window) -> int:
        """Apply a window. Return the new `value`."""
        ...


@runtime_checkable
class GrowingLimit(Limit, Protocol):
    """The interface of a limit that may grow within a window, while a call finds no free permit.

    The gate calls `when_full()` a few times in a window.
    """

    def when_full(self, window: Window) -> int:
        """Apply the unfinished window, which may have no samples. Return the new `value`, which is not lower."""
        ...


class MovingLimit:
    """The base of limits that move: an exact value between two bounds, and the whole number that is enforced.

    `least`, `initial` and `most` are counts of permits, in ascending order from 1; `window_s` is the length of a window
    in seconds. Raises ValueError for counts that do not ascend.
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
        """Move to the nearest value within the bounds; `why` becomes the reason if the enforced number changes."""
        self._exact = max(self._least, min(self._most, wanted))
        if int(self._exact) != self.value:
            self.value, self.reason = int(self._exact), why
