"""Readings of the service in one window: how many in flight, how many done a second, and the latency.

Latency is measured twice, by its median and by its mean. A median says nothing of two kinds of calls, of which one is
quick and one is slow; a mean says little where a few calls take very long. A queue shows in both.

Two readings with different counts in flight tell a queue from a slow service: behind a queue latency is in proportion
to the count and throughput stands; without one throughput is in proportion and latency stands.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log, sqrt
from statistics import fmean, pstdev
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from penstock.pressure.limits.window import Window

__all__ = ["Estimate", "Reading", "Readings", "mean", "median", "readings", "risen_from"]

# Standard errors to each side. Of order statistics one is sqrt(n) / 2 places, whatever the distribution.
ERRORS = 1.5
# No figure of a live service is better known than to a tenth, however many samples it is of.
LEAST_ERROR = 0.1
# Permits held for so many times what calls took are held for something else. Less may be calls that are too long for
# the windows they end in, whose times nobody hears of.
HIDDEN = 3.0
# Of so many calls or more, latency has risen where the lower quartile of the later half is so many times the upper one
# of the first calls: a quarter, and no more than these, as those behind them may have met a queue.
EARLY_CALLS = 8
LEAST_CALLS, RISEN = 32, 1.25
# A gate that takes the loop's lag off may be left with nothing, and nothing has no logarithm.
SHORTEST_S, LONGEST_S = 1e-6, 1e6


@dataclass(frozen=True, slots=True)
class Estimate:
    """A median or mean and its confidence interval, in seconds."""

    low_s: float
    middle_s: float
    high_s: float

    @property
    def error(self) -> float:
        """The standard error of its logarithm."""
        return log(self.high_s / self.low_s) / 2 / ERRORS


@dataclass(frozen=True, slots=True)
class Reading:
    """`inflight` is the highest count, `left` that at the end, `completed` how many ended, `throughput` a second's."""

    inflight: int
    left: int
    completed: int
    throughput: float
    rtt: Estimate
    mean_s: float

    @property
    def felt_s(self) -> float:
        """The latency, and on top of it what calls in flight wait for that no service time tells: the loop's own lag.

        By Little's law again: a full gate holds a permit for as long as its count divided by its throughput.
        """
        held_s = self.left / self.throughput if self.throughput > 0 else 0.0
        return self.rtt.middle_s + max(0.0, held_s - HIDDEN * self.mean_s)

    @property
    def full_s(self) -> float:
        """Latency once it has caught up with what is in flight, in seconds; at least what was measured.

        By Little's law the count is throughput times latency. While a queue grows, latency is still that of calls
        which found less of it.
        """
        return max(self.rtt.middle_s, self.left / self.throughput) if self.throughput > 0 else self.rtt.middle_s

    def balance(self, before: Reading) -> float:
        """Which of the two followed the count in flight from `before` to here, in standard errors.

        Above 0, throughput did: there is no queue in the service. Below 0, latency did: there is one. 0.0 if a figure
        is missing or the count is the same.
        """
        if self.throughput <= 0 or before.throughput <= 0:
            return 0.0
        latency, throughput = log(self.rtt.middle_s / before.full_s), log(self.throughput / before.throughput)
        counted = 1 / self.completed + 1 / before.completed + self.rtt.error**2 + before.rtt.error**2
        way = (self.inflight < before.inflight) - (self.inflight > before.inflight)
        return way * (latency - throughput) / sqrt(counted + LEAST_ERROR**2)


class Readings(NamedTuple):
    """The reading of one window by the median and by the mean of its latencies."""

    by_median: Reading
    by_mean: Reading

    def balance(self, before: Readings) -> float:
        """Return the balance that speaks less for a queue."""
        return max(self.by_median.balance(before.by_median), self.by_mean.balance(before.by_mean))


def median(values_s: Sequence[float]) -> Estimate:
    """Return the median of at least one value, and between which of the values the true one is likely to lie."""
    row = sorted(values_s)
    middle, reach = len(row) // 2, round(ERRORS * sqrt(len(row)) / 2)
    return _estimate(row[max(0, middle - reach)], row[middle], row[min(len(row) - 1, middle + reach)])


def mean(values_s: Sequence[float]) -> Estimate:
    """Return the mean of at least one value, and between which values the true one is likely to lie."""
    middle_s = fmean(values_s)
    reach_s = ERRORS * pstdev(values_s, middle_s) / sqrt(len(values_s))
    return _estimate(middle_s - reach_s, middle_s, middle_s + reach_s)


def _estimate(low_s: float, middle_s: float, high_s: float) -> Estimate:
    return Estimate(*(max(SHORTEST_S, min(LONGEST_S, value_s)) for value_s in (low_s, middle_s, high_s)))


def readings(window: Window) -> Readings:
    """Return the readings of a window with at least one sample."""

    def of(rtt: Estimate) -> Reading:
        return Reading(
            inflight=window.most_inflight,
            left=window.inflight,
            completed=window.completed,
            throughput=window.throughput,
            rtt=rtt,
            mean_s=window.mean_s,
        )

    return Readings(of(median(window.rtts_s)), of(mean(window.rtts_s)))


def risen_from(window: Window, least: int = LEAST_CALLS) -> Sequence[float]:
    """Return the earliest latencies if those that began later are clearly longer, else an empty sequence.

    Behind a queue that grows they are. Latencies that merely differ do not depend on when a call began; that of the
    later calls only short ones have ended yet does not look like a queue.
    """
    row = window.by_begin_s
    early, late = row[: min(EARLY_CALLS, len(row) // 4)], sorted(row[len(row) // 2 :])
    if len(row) < least or late[len(late) // 4] <= RISEN * sorted(early)[len(early) * 3 // 4]:
        return ()
    return early
