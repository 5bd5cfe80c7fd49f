"""`LimitProbe`: the schedule of a limit's probes for its floor, each a short time at half or twice the limit.

Under lasting overload every call waits in a queue, so the lowest latency includes that wait. Therefore a limit at rest
halves itself for two windows, and halves itself again while latency falls by more than throughput. A step takes a fifth
of a second, and the queue's backlog covers most of the throughput that it would cost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.pressure.limits.reading import Readings

__all__ = ["LimitProbe"]

# The pause after a probe that changed the floor, and the longest pause otherwise: probes take 2 % of the time.
SOON_S, LATE_S = 0.5, 10.0
# Calls admitted before a step down must end before it is judged; so many windows are waited for at most.
MOST_WINDOWS = 10


class LimitProbe:
    """The schedule of probes and the present probe. A floor found by a probe counts as known for `memory_s` seconds."""

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
        # probe often enough that a remembered floor never expires before the next one
        self._late_s = min(LATE_S, memory_s / 3)
        self._waiting, self._waited = False, 0
        self.is_first = True
        self.base: Readings | None = None
        self.start = 0.0
        self.start_base: Readings | None = None

    def due(self, now_s: float) -> bool:
        """Return whether the next probe is due."""
        return now_s >= self._at_s

    def begin(self, base: Readings, exact: float) -> None:
        """Start a probe from the limit `exact`, to be compared with the reading `base`."""
        self.is_first = False
        self.start, self.start_base = exact, base
        self.step(base)

    def step(self, base: Readings) -> None:
        """Continue the probe at another limit, to be compared with the reading `base`."""
        self.base = base
        self._waiting, self._waited = True, 0

    def waits(self, inflight: int, limit: int) -> bool:
        """Return whether the ended window mixes calls of two limits and must be ignored."""
        waiting, self._waiting = self._waiting, False
        if not waiting and self.base is not None and inflight > limit and self._waited < MOST_WINDOWS:
            self._waited += 1
            return True
        return waiting

    def end(self, now_s: float, *, found: bool, bottom: bool) -> None:
        """End the probe: `found` if it changed the floor, `bottom` if no lower limit would lower latency."""
        self.base, self._waiting = None, True
        self._pause_s = SOON_S if found else min(self._late_s, self._pause_s * 2)
        self._at_s = now_s + self._pause_s
        if bottom:
            self._known_until_s = now_s + self._memory_s

    def knows(self, now_s: float) -> bool:
        """Return whether a probe has confirmed the floor recently."""
        return now_s < self._known_until_s
