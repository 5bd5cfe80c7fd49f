"""How two figures move together over the last windows: whether more in flight brought more done, or only more waiting.

The rule that vetoes growth is failsafe-go's adaptive limiter's (Uber's Cinnamon tells the same by covariance): a limit
that grows while throughput stands still is filling a queue, whatever the latency says.
"""

from __future__ import annotations

from collections import deque
from math import sqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Correlation", "pearson", "variation"]

WINDOW_COUNT = 50
# Below this many windows a correlation is mostly chance: of 8 of noise, one in ten is beyond 0.6.
LEAST_COUNT = 8
# Of a limit that stands still, what correlates with it is noise.
LEAST_VARIATION = 0.1


def pearson(xs: Sequence[float], ys: Sequence[float]) -> float:
    """The correlation of two rows of figures, -1 to 1; 0.0 where one of them does not vary."""
    mean_x, mean_y = _mean(xs), _mean(ys)
    across = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    spread = sqrt(sum((x - mean_x) ** 2 for x in xs)) * sqrt(sum((y - mean_y) ** 2 for y in ys))
    return max(-1.0, min(1.0, across / spread)) if spread > 0 else 0.0


def variation(xs: Sequence[float]) -> float:
    """The coefficient of variation: the standard deviation in means; 0.0 where the mean is 0."""
    mean = _mean(xs)
    return sqrt(_mean([(x - mean) ** 2 for x in xs])) / mean if mean > 0 else 0.0


def _mean(xs: Iterable[float]) -> float:
    row = list(xs)
    return sum(row) / len(row) if row else 0.0


class Correlation:
    """The last `count` windows' inflight, throughput and latency, and what they say together."""

    __slots__ = ("_inflight", "_rtts_s", "_throughput")

    def __init__(self, count: int = WINDOW_COUNT) -> None:
        self._inflight: deque[float] = deque(maxlen=count)
        self._throughput: deque[float] = deque(maxlen=count)
        self._rtts_s: deque[float] = deque(maxlen=count)

    def __len__(self) -> int:
        return len(self._inflight)

    def add(self, inflight: float, throughput: float, rtt_s: float) -> None:
        """Take in one window's figures."""
        self._inflight.append(inflight)
        self._throughput.append(throughput)
        self._rtts_s.append(rtt_s)

    def clear(self) -> None:
        """Forget all windows: the service is another one now."""
        self._inflight.clear()
        self._throughput.clear()
        self._rtts_s.clear()

    @property
    def with_throughput(self) -> float:
        """How inflight and throughput move together, -1 to 1."""
        return pearson(self._inflight, self._throughput)

    @property
    def with_rtt(self) -> float:
        """How inflight and latency move together, -1 to 1."""
        return pearson(self._inflight, self._rtts_s)

    def veto(self) -> str:
        """Why a full limit must not grow, in words; "" if nothing speaks against it."""
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
