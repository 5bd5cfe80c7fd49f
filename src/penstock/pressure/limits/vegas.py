"""TCP Vegas's rule: the limit moves by what it estimates of the queue it makes itself.

For comparison. Its floor is the lowest latency since the last probe, and the probe takes the present latency for it:
under lasting overload that is a queue's, and the limit climbs. Gradient is what came of that.
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
    """Estimates the queue as `ceil(L * (1 - floor / rtt))` and keeps it between 3 and 6 times `log10(L)`.

    `probe_rounds` is after how many samples, in limits, the floor is taken anew, times a random half to one (`seed`
    makes it the same in every run). After Netflix's VegasLimit, a window's mean in place of each sample.
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
        """Up or down by steps of `log10(L)`, or a fast start's 6 of them."""
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
