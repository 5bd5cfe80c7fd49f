"""The limit that needs no number: it follows latency against its floor, window by window. "auto" is this one.

Envoy's gradient over windows, with its known faults taken out: the floor comes from live traffic (nothing is ever
pinned to measure it), it is looked for below the limit by short dips, given up when the service has really become
slower, and growth that brings no throughput is vetoed.
"""

from __future__ import annotations

from math import ceil, sqrt
from typing import TYPE_CHECKING

from penstock.pressure.limits.correlation import Correlation
from penstock.pressure.limits.floor import Floor, Median, median
from penstock.pressure.limits.window import LEAST_SAMPLES

if TYPE_CHECKING:
    from penstock.pressure.limits.window import Window

__all__ = ["Gradient"]

LEAST_GRADIENT, MOST_GRADIENT = 0.5, 2.0
# A full limit halves itself for two windows, the second of which holds only what the half let in: latency that comes
# down with it was a queue's. Half a second after a dip that taught something, else ever more rarely: 2 % of the time.
DIP_WINDOWS = 2
SOON_S, LATE_S = 0.5, 10.0
# Latency this near its floor has no queue worth a dip; a limit that would shrink below this share is not at rest.
NEAR, STEADY = 1.2, 0.95
CLOSE, MOST_STEPS = 1.1, 20
# A limit of which less than this share was in use does not grow.
USED = 0.75


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
        self._tolerance = tolerance
        self._exact = float(initial)
        self._floor = Floor(memory_s)
        self._correlation = Correlation()
        self._pending: Window | None = None
        self._skip = LEAST_SAMPLES
        self._now_s = 0.0
        self._pause_s, self._dip_at_s = SOON_S, 0.0
        self._dip_left = 0
        self._before = self._dip_from = (0.0, 0.0)
        self._settling = False
        self._memory_s, self._sure_until_s = memory_s, 0.0

    @property
    def floor_s(self) -> float:
        """What latency is taken to be without a queue, in seconds; 0.0 before the first window."""
        return self._floor.floor_s

    def update(self, window: Window) -> int:
        """Move the limit by what the window shows; windows of few samples are put together first."""
        window = self._pending.joined(window) if self._pending else window
        if len(window.rtts_s) < LEAST_SAMPLES + self._skip:
            self._pending = window
            return self.value
        self._pending, self._skip = None, 0
        rtt = median(window.rtts_s)
        self._now_s += window.duration_s
        if self._floor.add(window.duration_s, window.most_inflight, window.throughput, rtt):
            self._correlation.clear()
        if window.was_full and not self._settling and self._dip_left != DIP_WINDOWS:
            self._correlation.add(window.most_inflight, window.throughput, rtt.middle_s)
        if self._dip_left:
            self._dip_on(window, rtt.middle_s)
        elif self._settling:
            self._settling = False
        else:
            self._move(window, rtt.middle_s)
        return self.value

    def _move(self, window: Window, rtt_s: float) -> None:
        wanted, times = self._wanted(self._exact, rtt_s), rtt_s / self.floor_s
        if self._should_dip(window, wanted, times):
            self._before = self._exact, rtt_s
            self._dip(window, rtt_s)
        elif wanted <= self._exact:
            self._set(wanted, f"latency {times:.1f}x its floor")
        elif window.most_inflight < self._exact * USED:
            return
        elif window.was_full and (veto := self._correlation.veto()):
            self.reason = f"growth vetoed: {veto}"
        else:
            self._set(wanted, f"latency near its floor ({times:.2f}x)")

    def _wanted(self, exact: float, rtt_s: float) -> float:
        gradient = max(LEAST_GRADIENT, min(MOST_GRADIENT, self._tolerance * self.floor_s / rtt_s))
        return max(self._least, min(self._most, exact * gradient + sqrt(exact)))

    def _should_dip(self, window: Window, wanted: float, times: float) -> bool:
        """A full limit that has come to rest above its floor."""
        due = window.was_full and self._now_s >= self._dip_at_s and self._exact > self._least
        return due and times > NEAR and wanted > self._exact * STEADY

    def _dip(self, window: Window, rtt_s: float) -> None:
        self._dip_left = DIP_WINDOWS
        self._dip_from = window.throughput, rtt_s
        self._set(max(self._least, ceil(self._exact / 2)), "dipped to see latency without a queue")

    def _dip_on(self, window: Window, rtt_s: float) -> None:
        """At the end of a dip's last window: deeper while that brings latency down more than throughput, else back."""
        self._dip_left -= 1
        if self._dip_left:
            return
        brought, from_s = self._dip_from
        still = not window.was_full or rtt_s / from_s >= window.throughput / brought
        if still or self._exact <= self._least:
            self._sure_until_s = self._now_s + self._memory_s
        if still or self._exact <= self._least or self._known(rtt_s):
            self._back()
        else:
            self._dip(window, rtt_s)

    def _known(self, rtt_s: float) -> bool:
        """Whether this is the floor that an earlier dip has found to be one."""
        return self._now_s < self._sure_until_s and rtt_s < self.floor_s * CLOSE

    def _back(self) -> None:
        exact, rtt_s = self._before
        wanted = min(exact, self._rest(exact, rtt_s))
        self._pause_s = SOON_S if wanted < exact * STEADY else min(LATE_S, self._pause_s * 2)
        self._dip_at_s = self._now_s + self._pause_s
        self._settling = True
        self._set(wanted, f"back from a dip: floor {self.floor_s * 1e3:.1f} ms")

    def _rest(self, exact: float, rtt_s: float) -> float:
        """Where the formula comes to rest while latency is in proportion to the limit, as behind a queue it is."""
        for _ in range(MOST_STEPS):
            wanted = self._wanted(exact, rtt_s)
            rtt_s *= wanted / exact
            exact = wanted
        return exact

    def _set(self, wanted: float, why: str) -> None:
        if int(wanted) != self.value:
            self.reason = why
        self._exact, self.value = wanted, int(wanted)

    def __repr__(self) -> str:
        return f"<Gradient {self.value}: {self.reason}>"
