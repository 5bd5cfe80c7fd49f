"""The floor: an estimate of latency without a queue, the lowest latency of recent windows.

A plain minimum has two faults. The lowest of many noisy medians is too low; therefore the upper ends of their
confidence intervals are compared. A service that becomes slower leaves the old minimum far too low; therefore the floor
is reset once a smaller inflight count has not lowered latency, which shows that no queue causes the latency.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.pressure.limits.reading import Reading, Readings

__all__ = ["Floor", "Floors"]

# By this factor the inflight count must have fallen before latency is expected to follow.
LESS = 1.3
# A balance beyond so many standard errors is significant.
CLEAR = 1.5
# A floor is remembered for at least so many times its own latency.
MEMORY_LATENCIES = 30.0


class Floor:
    """The floor of latency over the windows of the last `memory_s` seconds."""

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
        """Add a window of `duration_s` seconds. Return whether its latency has replaced the floor."""
        risen = self.has_risen(duration_s, now)
        self.take(now, reset=risen)
        return risen

    def has_risen(self, duration_s: float, now: Reading) -> bool:
        """Return whether a window of `duration_s` seconds shows that the floor is outdated. Call `take` afterwards."""
        self._now_s += duration_s
        return self._stood_still(now) and now.rtt.low_s > self.floor_s

    def take(self, now: Reading, *, reset: bool) -> None:
        """Add a window's latency to the candidates for the floor; `reset` removes all earlier candidates."""
        if reset:
            self._candidates.clear()
        self._compete(now.rtt.high_s)

    def restart(self, now: Reading) -> None:
        """Replace the floor by this window's latency."""
        self._candidates.clear()
        self._compete(now.rtt.high_s)

    def _compete(self, high_s: float) -> None:
        """Add a candidate. Remove higher ones, which can never become the floor again, and expired ones."""
        candidates = self._candidates
        while candidates and candidates[-1][1] >= high_s:
            candidates.pop()
        candidates.append((self._now_s, high_s))
        # slow calls are remembered for longer, so that enough of them have ended
        while candidates[0][0] < self._now_s - max(self._memory_s, MEMORY_LATENCIES * candidates[0][1]):
            candidates.popleft()

    def _stood_still(self, now: Reading) -> bool:
        """Return whether a clearly lower inflight count has not lowered latency, compared with the reference window.

        An unclear result waits for a still lower count. If latency has risen meanwhile, the service is just changing:
        the window becomes the new reference and decides nothing.
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
    """The floors of the median and of the mean of latency. Only latency above both shows a queue."""

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
        """Add a window of `duration_s` seconds. Return whether its latencies have replaced both floors."""
        by_median = self._of_median.has_risen(duration_s, now.by_median)
        by_mean = self._of_mean.has_risen(duration_s, now.by_mean)
        risen = by_median and by_mean
        self._of_median.take(now.by_median, reset=risen)
        self._of_mean.take(now.by_mean, reset=risen)
        return risen

    def restart(self, now: Readings) -> None:
        """Replace both floors by this window's latencies."""
        self._of_median.restart(now.by_median)
        self._of_mean.restart(now.by_mean)

    def times(self, median_s: float, mean_s: float) -> float:
        """Return latency as a multiple of its floor, the lower of median and mean; 0.0 before the first window."""
        if not self.floor_s:
            return 0.0
        return min(median_s / self._of_median.floor_s, mean_s / self._of_mean.floor_s)

    def fell(self, before_s: tuple[float, float]) -> float:
        """Return the factor by which the floors fell since `before_s`, in seconds: the lower of median and mean."""
        return min(before_s[0] / self._of_median.floor_s, before_s[1] / self._of_mean.floor_s)
