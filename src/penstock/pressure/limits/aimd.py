"""Additive increase, multiplicative decrease: TCP's rule, on latency against a bound that somebody must know.

For comparison, and for who wants it: there is no floor that could be poisoned, but the limit is a saw whose teeth
stand at the bound, so that much of what is served is as late as the bound.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.pressure.limits.window import MovingLimit

if TYPE_CHECKING:
    from penstock.pressure.limits.window import Window

__all__ = ["Aimd"]


class Aimd(MovingLimit):
    """Times `backoff` when something was dropped or the window's mean latency is above `timeout_s`; else 1 more.

    One more only if at least half of the limit was in use. `timeout_s` should be about half the deadline. Counts of
    permits, seconds. Raises ValueError. After Netflix's AIMDLimit.
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
        """Down by a factor, or up by one."""
        mean_s = window.mean_s
        if window.dropped:
            self._set(self._exact * self._backoff, f"{window.dropped} dropped")
        elif mean_s > self._timeout_s:
            self._set(self._exact * self._backoff, f"latency {mean_s * 1e3:.1f} ms, above {self._timeout_s * 1e3:g} ms")
        elif window.rtts_s and window.most_inflight * 2 >= self._exact:
            self._set(self._exact + 1, f"latency below {self._timeout_s * 1e3:g} ms")
        return self.value
