"""Vitals: how one loop fares, read from another thread, also while the loop is blocked."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from penstock.pressure.overload.loop import is_overloaded

if TYPE_CHECKING:
    import asyncio

__all__ = ["BEAT_S", "Condition", "LoopVitals"]

# how often a loop without heartbeat is asked for a sign of life
BEAT_S = 0.5
# a turn of callbacks that all end, or a beat's wait, that lasts longer is overload
LATE_S = 1.0
# the level of task telemetry from which on the native loop writes heartbeat
STAMPED = 2


@dataclass(frozen=True, slots=True)
class Condition:
    """The state of a service: of one process, as of one moment."""

    is_started: bool = False
    is_ending: bool = False
    is_overloaded: bool = False
    # for how long one callback has kept the loop; 0 while callbacks end
    blocked_s: float = 0.0


class LoopVitals:
    """The signs of life of one loop: the native loop's heartbeat, elsewhere beats, callbacks that are sent to it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop: Any = loop
        self._probe: Any = getattr(loop, "_probe", None)
        # of the beat on its way; how late the last one was
        self._sent_s: float | None = None
        self._late_s = 0.0

    @property
    def needs_beats(self) -> bool:
        """Whether `beat()` is to be called every `BEAT_S`: nothing else tells of this loop."""
        return self._probe is None or self._probe.level < STAMPED

    def beat(self) -> None:
        """Send the next beat, if the last one has arrived."""
        if self._sent_s is None:
            self._sent_s = time.monotonic()
            try:
                self._loop.call_soon_threadsafe(self._arrive)
            except RuntimeError:
                # closed: it runs nothing any more
                self._sent_s, self._late_s = None, 0.0

    def _arrive(self) -> None:
        sent_s, self._sent_s = self._sent_s, None
        if sent_s is not None:
            self._late_s = time.monotonic() - sent_s

    def read(self) -> tuple[float, bool]:
        """Return for how long one callback has kept the loop, in seconds, and whether the loop is overloaded."""
        if self.needs_beats:
            waited_s = 0.0 if self._sent_s is None or not self._loop.is_running() else time.monotonic() - self._sent_s
            return waited_s, is_overloaded(self._loop) or self._late_s > LATE_S
        turn_since_ns, callback_since_ns, *_ = self._probe.heartbeat.look()
        now_ns = time.monotonic_ns()
        blocked_s = (now_ns - callback_since_ns) / 1e9 if callback_since_ns else 0.0
        turn_s = (now_ns - turn_since_ns) / 1e9 if turn_since_ns else 0.0
        return blocked_s, is_overloaded(self._loop) or turn_s - blocked_s > LATE_S
