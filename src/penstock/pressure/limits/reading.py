"""Readings of the service in one window: inflight count, throughput and latency.

Latency is measured by its median and by its mean. A median hides a mix of quick and slow calls; a mean is unreliable
where a few calls take very long. A queue shows in both.

Two readings with different inflight counts distinguish a queue from a slow service. Behind a queue, latency is
proportional to the count and throughput is constant. Without a queue, throughput is proportional and latency is
constant.
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

# Standard errors to each side of an estimate. For a median, one is sqrt(n) / 2 ranks in any distribution.
ERRORS = 1.5
# The least relative error of a measured value: a live service varies by a tenth even with many samples.
LEAST_ERROR = 0.1
# Permits held for more than so many times the service time wait for something that it does not include. A smaller
# factor may be due to calls that are longer than a window, which have no sample.
HIDDEN = 3.0
# With LEAST_CALLS calls or more, latency has risen if the lower quartile of the later half is RISEN times the upper
# quartile of the first calls. These are a quarter of all, at most EARLY_CALLS: later ones may have met a queue.
EARLY_CALLS = 8
LEAST_CALLS, RISEN = 32, 1.25
# Bounds of an estimate. A service time without the loop's lag may be 0, which has no logarithm.
SHORTEST_S, LONGEST_S = 1e-6, 1e6


@dataclass(frozen=True, slots=True)
class Estimate:
    """A median or mean and its confidence interval, in seconds."""

    low_s: float
    middle_s: float
    high_s: float

    @property
    def error(self) -> float:
        """The standard error of the estimate's logarithm."""
        return log(self.high_s / self.low_s) / 2 / ERRORS


@dataclass(frozen=True, slots=True)
class Reading:
    """The figures of one window.

    `inflight` is the highest count of permits held and `left` the count at the end; `completed` is the count of ended
    calls and `throughput` that count a second; `rtt` and `mean_s` are service times in seconds.
    """

    inflight: int
    left: int
    completed: int
    throughput: float
    rtt: Estimate
    mean_s: float

    @property
    def felt_s(self) -> float:
        """Latency including waits that no service time contains, such as the loop's lag, in seconds.

        By Little's law a full gate holds each permit for its count divided by its throughput.
        """
        held_s = self.left / self.throughput if self.throughput > 0 else 0.0
        return self.rtt.middle_s + max(0.0, held_s - HIDDEN * self.mean_s)

    @property
    def full_s(self) -> float:
        """Latency that calls admitted now will have, in seconds; at least the measured latency.

        By Little's law the count is throughput times latency. While a queue grows, the measured latency is that of
        calls which found a shorter queue.
        """
        return max(self.rtt.middle_s, self.left / self.throughput) if self.throughput > 0 else self.rtt.middle_s

    def balance(self, before: Reading) -> float:
        """Return whether throughput or latency followed the inflight count since `before`, in standard errors.

        Above 0 throughput followed it, so the service has no queue. Below 0 latency followed it, so there is a queue.
        0.0 if a figure is missing or the count is the same.
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
        """Return the higher balance of median and mean, which is the weaker sign of a queue."""
        return max(self.by_median.balance(before.by_median), self.by_mean.balance(before.by_mean))


def median(values_s: Sequence[float]) -> Estimate:
    """Return the median of one or more values in seconds, with its confidence interval."""
    row = sorted(values_s)
    middle, reach = len(row) // 2, round(ERRORS * sqrt(len(row)) / 2)
    return _estimate(row[max(0, middle - reach)], row[middle], row[min(len(row) - 1, middle + reach)])


def mean(values_s: Sequence[float]) -> Estimate:
    """Return the mean of one or more values in seconds, with its confidence interval."""
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
    """Return the latencies of the earliest calls if later calls are clearly longer, else an empty sequence.

    `least` is the lowest count of calls to judge by. Behind a growing queue, later calls take longer; other differences
    of latency do not depend on when a call began. Short calls that end first do not look like a queue either.
    """
    row = window.by_begin_s
    early, late = row[: min(EARLY_CALLS, len(row) // 4)], sorted(row[len(row) // 2 :])
    if len(row) < least or late[len(late) // 4] <= RISEN * sorted(early)[len(early) * 3 // 4]:
        return ()
    return early
