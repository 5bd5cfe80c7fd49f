"""`Gradient2`: a limit by the ratio of a long and a short average of latency, after Netflix's Gradient2Limit.

Kept for comparison only. The long average follows latency upwards, so lasting overload becomes the normal state, and
nothing offsets the constant that each window adds. Do not choose it for a service; the benchmark shows why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.pressure.limits.window import MovingLimit

if TYPE_CHECKING:
    from penstock.pressure.limits.window import Window

__all__ = ["Gradient2"]

WARM_UP = 10
LEAST_GRADIENT = 0.5


class Gradient2(MovingLimit):
    """The gradient of two averages: `L = L * 0.8 + (L * clamp(tolerance * long / short, 0.5, 1) + queue) * 0.2`.

    The short average is the window's mean latency. The defaults are those of Netflix's Gradient2Limit and
    WindowedLimit. `initial`, `least` and `most` are counts of permits, in ascending order from 1. `tolerance` is the
    factor by which the short average may exceed the long one; `queue` is the count of permits added each time;
    `smoothing` is the weight of the new value, 0 to 1; `long_windows` is the length of the long average in windows;
    `window_s` is the length of a window in seconds. Raises ValueError for counts that do not ascend.
    """

    def __init__(
        self,
        initial: int = 20,
        *,
        least: int = 20,
        most: int = 200,
        tolerance: float = 1.5,
        queue: float = 4.0,
        smoothing: float = 0.2,
        long_windows: int = 600,
        window_s: float = 1.0,
    ) -> None:
        super().__init__(initial, least, most, window_s)
        self._tolerance, self._queue, self._smoothing = tolerance, queue, smoothing
        self._long_windows = long_windows
        self.long_s, self._count, self._sum_s = 0.0, 0, 0.0

    def update(self, window: Window) -> int:
        """Move the limit by `smoothing` of the way to the value that the averages give. Return the limit."""
        short_s = window.mean_s
        if short_s <= 0:
            return self.value
        self._average(short_s)
        if self.long_s / short_s > 2:
            self.long_s *= 0.95
        if window.most_inflight >= self._exact / 2:
            gradient = max(LEAST_GRADIENT, min(1.0, self._tolerance * self.long_s / short_s))
            self._set(self._exact * gradient + self._queue, f"latency {short_s / self.long_s:.2f}x its average")
        return self.value

    def _average(self, short_s: float) -> None:
        """Update the long average: the mean of the first windows, then an exponential average."""
        self._count += 1
        if self._count <= WARM_UP:
            self._sum_s += short_s
            self.long_s = self._sum_s / self._count
        else:
            self.long_s += (short_s - self.long_s) * 2 / (self._long_windows + 1)

    def _set(self, wanted: float, why: str) -> None:
        super()._set(self._exact * (1 - self._smoothing) + wanted * self._smoothing, why)
