"""Correlation of the inflight count with throughput and latency over recent windows: the veto on a limit's growth.

The rule is that of failsafe-go's adaptive limiter; Uber's Cinnamon uses a covariance. A limit that grows while
throughput stands still fills a queue, even if latency does not show it yet.
"""

from __future__ import annotations

from collections import deque
from math import sqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Correlation", "pearson", "variation"]

WINDOW_COUNT = 50
# Fewer windows give correlations that are mostly chance: with 8 windows of noise one in ten is beyond 0.6.
LEAST_COUNT = 8
# While the inflight count hardly varies, a correlation with it is noise.
LEAST_VARIATION = 0.1


def pearson(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Return the correlation of two sequences of equal length, -1 to 1; 0.0 if one of them does not vary."""
    mean_x, mean_y = _mean(xs), _mean(ys)
    across = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    spread = sqrt(sum((x - mean_x) ** 2 for x in xs)) * sqrt(sum((y - mean_y) ** 2 for y in ys))
    return max(-1.0, min(1.0, across / spread)) if spread > 0 else 0.0


def variation(xs: Sequence[float]) -> float:
    """Return the coefficient of variation, the standard deviation divided by the mean; 0.0 if the mean is 0."""
    mean = _mean(xs)
    return sqrt(_mean([(x - mean) ** 2 for x in xs])) / mean if mean > 0 else 0.0


def _mean(xs: Iterable[float]) -> float:
    row = list(xs)
    return sum(row) / len(row) if row else 0.0


class Correlation:
    """A record of inflight count, throughput and latency of the last `count` windows."""

    __slots__ = ("_inflight", "_rtts_s", "_throughput")

    def __init__(self, count: int = WINDOW_COUNT) -> None:
        self._inflight: deque[float] = deque(maxlen=count)
        self._throughput: deque[float] = deque(maxlen=count)
        self._rtts_s: deque[float] = deque(maxlen=count)

    def __len__(self) -> int:
        return len(self._inflight)

    def add(self, inflight: float, throughput: float, rtt_s: float) -> None:
        """Add one window: a count of permits, completions a second and a latency in seconds."""
        self._inflight.append(inflight)
        self._throughput.append(throughput)
        self._rtts_s.append(rtt_s)

    def clear(self) -> None:
        """Forget all windows, because the service has changed."""
        self._inflight.clear()
        self._throughput.clear()
        self._rtts_s.clear()

    @property
    def with_throughput(self) -> float:
        """The correlation of inflight count and throughput, -1 to 1."""
        return pearson(self._inflight, self._throughput)

    @property
    def with_rtt(self) -> float:
        """The correlation of inflight count and latency, -1 to 1."""
        return pearson(self._inflight, self._rtts_s)

    def veto(self) -> str:
        """Return the reason why a full limit must not grow; "" if it may."""
        if len(self) < LEAST_COUNT or variation(self._inflight) < LEAST_VARIATION:
            return ""
        throughput, rtt = self.with_throughput, self.with_rtt
        if throughput < 0:
            return "more in flight brings less throughput"
        if throughput < 0.3 and rtt > 0.5:
            return "more in flight brings no throughput"
        if rtt > 0.5 and variation(self._throughput) < 0.2:
            return "throughput is level and latency rises with what is in flight"
        return ""
