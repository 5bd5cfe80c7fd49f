"""What one window says of the service: how many in flight, how many done a second, and the median of latency.

Two readings with different counts in flight tell a queue from a slow service: behind a queue latency is in proportion
to the count and throughput stands; without one throughput is in proportion and latency stands.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from penstock.pressure.limits.window import Window

__all__ = ["Median", "Reading", "median", "reading"]

# Standard errors to each side. Of order statistics one is sqrt(n) / 2 places, whatever the distribution.
ERRORS = 1.5


@dataclass(frozen=True, slots=True)
class Median:
    """A median and its confidence interval, in seconds."""

    low_s: float
    middle_s: float
    high_s: float


@dataclass(frozen=True, slots=True)
class Reading:
    """`inflight` is the window's highest count, `throughput` in completions a second."""

    inflight: int
    throughput: float
    rtt: Median

    @property
    def lag(self) -> float:
        """How far latency lags behind what is in flight, as a factor of at least 1.

        By Little's law the count is throughput times latency. While a queue grows, latency is still that of calls
        which found less of it.
        """
        passed = self.throughput * self.rtt.middle_s
        return max(1.0, self.inflight / passed) if passed > 0 else 1.0


def median(values_s: Sequence[float]) -> Median:
    """The median of at least one value, and between which of the values the true one is likely to lie."""
    row = sorted(values_s)
    middle, reach = len(row) // 2, round(ERRORS * sqrt(len(row)) / 2)
    return Median(row[max(0, middle - reach)], row[middle], row[min(len(row) - 1, middle + reach)])


def reading(window: Window) -> Reading:
    """A window's reading; the window has at least one sample."""
    return Reading(window.most_inflight, window.throughput, median(window.rtts_s))
