"""`Vegas`: a limit by an estimate of its own queue, after TCP Vegas.

Kept for comparison. The floor is the lowest latency since the last probe, and a probe takes the present latency as the
floor. Under lasting overload that includes a queue, so the limit climbs; `Gradient` was written to avoid this.
"""

from __future__ import annotations

from math import ceil, log10
from random import Random
from typing import TYPE_CHECKING

from penstock.pressure.limits.window import MovingLimit

if TYPE_CHECKING:
    from penstock.pressure.limits.window import Window

__all__ = ["Vegas"]


class Vegas(MovingLimit):
    """A limit that keeps its queue, `ceil(L * (1 - floor / rtt))`, between 3 and 6 times `log10(L)`.

    It is Netflix's VegasLimit with a window's mean in place of each sample. `initial`, `least` and `most` are counts of
    permits, in ascending order from 1. After `probe_rounds` times the limit of samples, times a random factor between
    a half and one, the floor is measured anew; `seed` is the seed of that factor. `window_s` is the length of a window
    in seconds. Raises ValueError for counts that do not ascend.
    """

    def __init__(
        self,
        initial: int = 20,
        *,
        least: int = 1,
        most: int = 1000,
        probe_rounds: int = 30,
        window_s: float = 0.1,
        seed: int = 0,
    ) -> None:
        super().__init__(initial, least, most, window_s)
        self._probe_rounds = probe_rounds
        self._random = Random(seed)
        self.floor_s = 0.0
        self._samples = 0
        self._jitter = self._next_jitter()

    def _next_jitter(self) -> float:
        return 0.5 + self._random.random() / 2

    def update(self, window: Window) -> int:
        """Move the limit up or down by `log10(L)`, or up by six times that without a queue. Return the limit."""
        rtt_s = window.mean_s
        if rtt_s <= 0:
            return self.value
        if self._probes(window) or not 0 < self.floor_s <= rtt_s:
            self.floor_s = rtt_s
        self._move(window, ceil(self._exact * (1 - self.floor_s / rtt_s)))
        return self.value

    def _probes(self, window: Window) -> bool:
        self._samples += window.completed
        if self._samples < self._jitter * self._probe_rounds * self._exact:
            return False
        self._samples, self._jitter = 0, self._next_jitter()
        return True

    def _move(self, window: Window, queue: int) -> None:
        step = max(1.0, log10(self._exact))
        if window.dropped:
            self._set(self._exact - step, f"{window.dropped} dropped")
        elif window.most_inflight * 2 < self._exact:
            return
        elif queue <= step:
            self._set(self._exact + 6 * step, f"no queue to speak of ({queue})")
        elif queue < 3 * step:
            self._set(self._exact + step, f"a short queue ({queue})")
        elif queue > 6 * step:
            self._set(self._exact - step, f"a long queue ({queue})")
