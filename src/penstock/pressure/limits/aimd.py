"""`Aimd`: additive increase and multiplicative decrease, TCP's rule, driven by latency above a configured bound.

No measured floor can mislead it, but the bound must be known. The limit oscillates around the bound, so the latency of
many served calls is near it. Kept for comparison, and for services whose latency bound is known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.pressure.limits.window import MovingLimit

if TYPE_CHECKING:
    from penstock.pressure.limits.window import Window

__all__ = ["Aimd"]


class Aimd(MovingLimit):
    """A limit with additive increase and multiplicative decrease, after Netflix's AIMDLimit.

    A window with dropped calls, or with a mean latency above `timeout_s`, multiplies the limit by `backoff`. Any other
    window raises it by 1 if at least half of it was in use.

    `initial`, `least` and `most` are counts of permits, in ascending order from 1. `timeout_s` is a latency in seconds,
    best about half the deadline; `backoff` is a factor between 0 and 1; `window_s` is the length of a window in
    seconds. Raises ValueError for values outside these ranges.
    """

    __slots__ = ("_backoff", "_timeout_s")

    def __init__(
        self,
        initial: int = 10,
        *,
        least: int = 1,
        most: int = 1000,
        timeout_s: float = 0.05,
        backoff: float = 0.9,
        window_s: float = 0.1,
    ) -> None:
        super().__init__(initial, least, most, window_s)
        if not (0 < backoff < 1 and timeout_s > 0):
            raise ValueError(f"backoff = {backoff}: between 0 and 1; timeout_s = {timeout_s}: above 0")
        self._timeout_s, self._backoff = timeout_s, backoff

    def update(self, window: Window) -> int:
        """Lower the limit by the factor or raise it by one, as the window says. Return the limit."""
        mean_s = window.mean_s
        if window.dropped:
            self._set(self._exact * self._backoff, f"{window.dropped} dropped")
        elif mean_s > self._timeout_s:
            self._set(self._exact * self._backoff, f"latency {mean_s * 1e3:.1f} ms, above {self._timeout_s * 1e3:g} ms")
        elif window.rtts_s and window.most_inflight * 2 >= self._exact:
            self._set(self._exact + 1, f"latency below {self._timeout_s * 1e3:g} ms")
        return self.value
