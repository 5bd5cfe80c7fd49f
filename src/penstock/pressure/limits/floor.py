"""What latency is without a queue: the lowest of the last while, and when to stop believing it.

A lowest value has two faults. Of noisy medians the lowest is too low: so what competes is the upper end of each
median's confidence interval. And a service that turns slower leaves it standing, far too low, until it is forgotten:
so it is given up as soon as fewer in flight have not brought latency down, for then the latency is not a queue's.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.pressure.limits.reading import Reading, Readings

__all__ = ["Floor", "Floors"]

# How far the count in flight must have come down before latency is expected to follow.
LESS = 1.3
# How many standard errors decide.
CLEAR = 1.5
MEMORY_LATENCIES = 30.0


class Floor:
    """The floor of latency over the last `memory_s` seconds of windows."""

    __slots__ = ("_candidates", "_memory_s", "_now_s", "_reference")

    def __init__(self, memory_s: float) -> None:
        self._memory_s = memory_s
        self._now_s = 0.0
        self._candidates: deque[tuple[float, float]] = deque()
        self._reference: Reading | None = None

    @property
    def floor_s(self) -> float:
        """The floor, in seconds; 0.0 before the first window."""
        return self._candidates[0][1] if self._candidates else 0.0

    def add(self, duration_s: float, now: Reading) -> bool:
        """Take in a window; whether the old floor has been given up for this window's latency."""
        risen = self.has_risen(duration_s, now)
        self.take(now, given_up=risen)
        return risen

    def has_risen(self, duration_s: float, now: Reading) -> bool:
        """Look at a window: whether the floor is to be given up. `take` it afterwards."""
        self._now_s += duration_s
        return self._stood_still(now) and now.rtt.low_s > self.floor_s

    def take(self, now: Reading, *, given_up: bool) -> None:
        """Let a window's latency compete; for an empty place, where the old floor is given up."""
        if given_up:
            self._candidates.clear()
        self._compete(now.rtt.high_s)

    def restart(self, now: Reading) -> None:
        """Give the old floor up for this window's latency."""
        self._candidates.clear()
        self._compete(now.rtt.high_s)

    def _compete(self, high_s: float) -> None:
        """Keep, of the rising candidates, those that could still be the lowest of a later while."""
        candidates = self._candidates
        while candidates and candidates[-1][1] >= high_s:
            candidates.pop()
        candidates.append((self._now_s, high_s))
        # of slow calls, so many must have ended before what they say is forgotten
        while candidates[0][0] < self._now_s - max(self._memory_s, MEMORY_LATENCIES * candidates[0][1]):
            candidates.popleft()

    def _stood_still(self, now: Reading) -> bool:
        """Whether clearly fewer in flight have left latency where it was, against the last window with more.

        What is not clear yet waits for fewer still. Latency that has risen meanwhile is a service that is just
        changing: nothing is learnt from that but where to start again.
        """
        before = self._reference
        if before is None or now.inflight >= before.inflight:
            self._reference = now
            return False
        if now.inflight * LESS > before.inflight:
            return False
        changing = now.rtt.low_s > max(before.full_s, before.rtt.high_s)
        balance = now.balance(before)
        if changing or abs(balance) > CLEAR:
            self._reference = now
        return balance > CLEAR and not changing


class Floors:
    """The floors of the median and of the mean of latency. A queue is met only above both."""

    __slots__ = ("_of_mean", "_of_median")

    def __init__(self, memory_s: float) -> None:
        self._of_median, self._of_mean = Floor(memory_s), Floor(memory_s)

    @property
    def floor_s(self) -> float:
        """The median's floor, in seconds; 0.0 before the first window."""
        return self._of_median.floor_s

    @property
    def both_s(self) -> tuple[float, float]:
        """The floors of the median and of the mean, in seconds."""
        return self._of_median.floor_s, self._of_mean.floor_s

    def add(self, duration_s: float, now: Readings) -> bool:
        """Take in a window. Return whether the old floors have been given up: both are, or none."""
        by_median = self._of_median.has_risen(duration_s, now.by_median)
        by_mean = self._of_mean.has_risen(duration_s, now.by_mean)
        risen = by_median and by_mean
        self._of_median.take(now.by_median, given_up=risen)
        self._of_mean.take(now.by_mean, given_up=risen)
        return risen

    def restart(self, now: Readings) -> None:
        """Give the old floors up for this window's latencies."""
        self._of_median.restart(now.by_median)
        self._of_mean.restart(now.by_mean)

    def times(self, median_s: float, mean_s: float) -> float:
        """Return how many times its floor latency is: the lesser of the two. 0.0 before the first window."""
        if not self.floor_s:
            return 0.0
        return min(median_s / self._of_median.floor_s, mean_s / self._of_mean.floor_s)

    def fell(self, before_s: tuple[float, float]) -> float:
        """Return how many times as high both floors were before: the lesser of the two."""
        return min(before_s[0] / self._of_median.floor_s, before_s[1] / self._of_mean.floor_s)
