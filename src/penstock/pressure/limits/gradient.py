"""The limit that needs no number: it follows latency against its floor, window by window. "auto" is this one.

Envoy's gradient over windows, with its known faults taken out: the floor comes from live traffic (nothing is ever
pinned to measure it), and growth that brings no throughput is vetoed.
"""

from __future__ import annotations

from collections import deque
from math import sqrt
from typing import TYPE_CHECKING

from penstock.pressure.limits.correlation import Correlation
from penstock.pressure.limits.window import LEAST_SAMPLES

if TYPE_CHECKING:
    from penstock.pressure.limits.window import Window

__all__ = ["Gradient"]

LEAST_GRADIENT, MOST_GRADIENT = 0.5, 2.0


class Gradient:
    """The windowed gradient: `L = clamp(L * g + sqrt(L))` with `g = clamp(floor * tolerance / median, 0.5, 2)`.

    `initial`, `least` and `most` are counts of permits; `window_s` is how long a window is, `memory_s` for how long
    the lowest median of latency is the floor, both in seconds; `tolerance` is how far above its floor latency may be
    before the limit shrinks.
    """

    def __init__(
        self,
        initial: int = 10,
        *,
        least: int = 1,
        most: int = 1000,
        tolerance: float = 1.25,
        window_s: float = 0.1,
        memory_s: float = 30.0,
    ) -> None:
        if not 1 <= least <= initial <= most:
            raise ValueError(f"least = {least}, initial = {initial}, most = {most}: must ascend from 1")
        self.value = initial
        self.reason = "initial"
        self.window_s = window_s
        self._least, self._most = least, most
        self._tolerance, self._memory_s = tolerance, memory_s
        self._exact = float(initial)
        self._now_s = 0.0
        self._floors: deque[tuple[float, float]] = deque()
        self._correlation = Correlation()
        self._pending: Window | None = None
        self._skip = LEAST_SAMPLES

    @property
    def floor_s(self) -> float:
        """The lowest median of the last `memory_s`, in seconds; 0.0 before there is one."""
        return self._floors[0][1] if self._floors else 0.0

    def update(self, window: Window) -> int:
        """Move the limit by what the window shows; windows of few samples are put together first."""
        window = self._pending.joined(window) if self._pending else window
        if len(window.rtts_s) < LEAST_SAMPLES + self._skip:
            self._pending = window
            return self.value
        self._pending, self._skip = None, 0
        median_s = window.median_s
        self._now_s += window.duration_s
        self._remember(median_s)
        if window.was_full:
            self._correlation.add(window.most_inflight, window.throughput, median_s)
        self._move(window, median_s)
        return self.value

    def _remember(self, median_s: float) -> None:
        floors = self._floors
        while floors and floors[-1][1] >= median_s:
            floors.pop()
        floors.append((self._now_s, median_s))
        while floors[0][0] < self._now_s - self._memory_s:
            floors.popleft()

    def _move(self, window: Window, median_s: float) -> None:
        times = median_s / self.floor_s if self.floor_s > 0 else 1.0
        gradient = max(LEAST_GRADIENT, min(MOST_GRADIENT, self._tolerance / times))
        wanted = max(self._least, min(self._most, self._exact * gradient + sqrt(self._exact)))
        if wanted <= self._exact:
            self._set(wanted, f"latency {times:.1f}x its floor")
        elif window.most_inflight < self._exact / 2:
            return
        elif veto := self._correlation.veto():
            self.reason = f"growth vetoed: {veto}"
        else:
            self._set(wanted, f"latency near its floor ({times:.2f}x)")

    def _set(self, wanted: float, why: str) -> None:
        if int(wanted) != self.value:
            self.reason = why
        self._exact, self.value = wanted, int(wanted)

    def __repr__(self) -> str:
        return f"<Gradient {self.value}: {self.reason}>"
