"""When a limit looks for its floor, and what it started from: a short stay at half the limit, or at twice of it.

Under lasting overload no call ever meets an empty service, and the lowest latency is a queue's. So a limit at rest
halves itself for two windows, and again while that brings latency down more than throughput. Nothing is pinned: one
step is a fifth of a second, and of throughput it costs only what the queue did not hold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.pressure.limits.reading import Readings

__all__ = ["Probe"]

# Half a second after one that taught something, else ever more rarely, up to one in 10 s: 2 % of the time.
SOON_S, LATE_S = 0.5, 10.0
# What was in flight before a dip must have drained; calls so slow are not waited for longer than this.
MOST_WINDOWS = 10


class Probe:
    """The schedule of probes and the one under way. `memory_s`: for how long a floor found by one counts as known."""

    __slots__ = (
        "_at_s",
        "_known_until_s",
        "_late_s",
        "_memory_s",
        "_pause_s",
        "_waited",
        "_waiting",
        "base",
        "is_first",
        "start",
        "start_base",
    )

    def __init__(self, memory_s: float) -> None:
        self._memory_s = memory_s
        self._pause_s, self._at_s, self._known_until_s = SOON_S, 0.0, 0.0
        # often enough that there is always a floor to remember
        self._late_s = min(LATE_S, memory_s / 3)
        self._waiting, self._waited = False, 0
        self.is_first = True
        self.base: Readings | None = None
        self.start = 0.0
        self.start_base: Readings | None = None

    def due(self, now_s: float) -> bool:
        """Whether it is time for another."""
        return now_s >= self._at_s

    def begin(self, base: Readings, exact: float) -> None:
        """Start one, from the limit `exact` and the reading it will be held against."""
        self.is_first = False
        self.start, self.start_base = exact, base
        self.step(base)

    def step(self, base: Readings) -> None:
        """Go on to another limit, to be held against this reading."""
        self.base = base
        self._waiting, self._waited = True, 0

    def waits(self, inflight: int, limit: int) -> bool:
        """Whether the window that has just ended is still of two limits, and says nothing of the present one."""
        waiting, self._waiting = self._waiting, False
        if not waiting and self.base is not None and inflight > limit and self._waited < MOST_WINDOWS:
            self._waited += 1
            return True
        return waiting

    def end(self, now_s: float, *, taught: bool, bottom: bool) -> None:
        """It is over; whether it has moved the limit, and whether it met latency that no smaller limit would lower."""
        self.base, self._waiting = None, True
        self._pause_s = SOON_S if taught else min(self._late_s, self._pause_s * 2)
        self._at_s = now_s + self._pause_s
        if bottom:
            self._known_until_s = now_s + self._memory_s

    def knows(self, now_s: float) -> bool:
        """Whether the floor has been met not long ago."""
        return now_s < self._known_until_s
