"""What latency is without a queue: the lowest of the last while, and when to stop believing it.

A lowest value has two faults. Of noisy medians the lowest is too low: so what competes is the upper end of each
median's confidence interval. And a service that turns slower leaves it standing, far too low, until it is forgotten:
so it is given up as soon as fewer in flight have not brought latency down, for then the latency is not a queue's.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import ceil, sqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Floor", "Median", "median"]

# Two standard errors: of order statistics, an index of sqrt(n) / 2 to each side is one, whatever the distribution.
ERRORS = 2.0
# How far the count in flight must have come down before latency is expected to follow.
LESS = 1.3


@dataclass(frozen=True, slots=True)
class Median:
    """A median and its confidence interval, in seconds."""

    low_s: float
    middle_s: float
    high_s: float


def median(values_s: Sequence[float]) -> Median:
    """The median of at least one value, and between which of the values the true one is likely to lie."""
    row = sorted(values_s)
    middle, reach = len(row) // 2, ceil(ERRORS * sqrt(len(row)) / 2)
    return Median(row[max(0, middle - reach)], row[middle], row[min(len(row) - 1, middle + reach)])


class Floor:
    """The floor of latency over the last `memory_s` seconds of windows."""

    __slots__ = ("_candidates", "_memory_s", "_now_s", "_reference")

    def __init__(self, memory_s: float) -> None:
        self._memory_s = memory_s
        self._now_s = 0.0
        self._candidates: deque[tuple[float, float]] = deque()
        self._reference: tuple[int, float, Median] | None = None

    @property
    def floor_s(self) -> float:
        """The floor, in seconds; 0.0 before the first window."""
        return self._candidates[0][1] if self._candidates else 0.0

    def add(self, duration_s: float, inflight: int, throughput: float, rtt: Median) -> bool:
        """Take in a window; whether the old floor has been given up for this window's latency."""
        self._now_s += duration_s
        risen = self._stood_still(inflight, throughput, rtt) and rtt.low_s > self.floor_s
        if risen:
            self._candidates.clear()
        self._compete(rtt.high_s)
        return risen

    def _compete(self, high_s: float) -> None:
        """Keep, of the rising candidates, those that could still be the lowest of a later while."""
        candidates = self._candidates
        while candidates and candidates[-1][1] >= high_s:
            candidates.pop()
        candidates.append((self._now_s, high_s))
        while candidates[0][0] < self._now_s - self._memory_s:
            candidates.popleft()

    def _stood_still(self, inflight: int, throughput: float, rtt: Median) -> bool:
        """Whether clearly fewer in flight have left latency where it was, against the last window with more.

        Of a queue in the service latency is proportional to what is in flight; without one throughput is. Between the
        two, at the square root of the fall, lies the line; an interval across it decides nothing yet.
        """
        if self._reference is None or inflight >= self._reference[0]:
            self._reference = inflight, throughput, rtt
            return False
        more, brought, before = self._reference
        if inflight * LESS > more:
            return False
        line = sqrt(inflight / more)
        still = rtt.low_s > before.high_s * line and throughput < brought * line
        if still or rtt.high_s < before.low_s * line:
            self._reference = inflight, throughput, rtt
        return still
