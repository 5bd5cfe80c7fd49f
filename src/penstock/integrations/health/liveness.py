"""The progress of a loop, read from another thread: how long it has been blocked, and whether it is overloaded."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from penstock.loop.native import HEARTBEAT_LEVEL, native_core
from penstock.pressure.overload.loop import is_overloaded

if TYPE_CHECKING:
    import asyncio

    from penstock._core.tasks.probe import Probe

__all__ = ["PING_S", "HealthState", "LoopLiveness"]

# how often a ping is sent to a loop that has no heartbeat
PING_S = 0.5
# a turn of callbacks that all end, or a ping's wait, that lasts longer is overload
LATE_S = 1.0


@dataclass(frozen=True, slots=True)
class HealthState:
    """The state of one process at one moment."""

    is_started: bool = False
    is_draining: bool = False
    is_overloaded: bool = False
    # for how long one callback has blocked the loop; 0 while callbacks end
    blocked_s: float = 0.0


class LoopLiveness:
    """The progress of one loop: by the native loop's heartbeat, or by pings, callbacks that are sent to the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop: Any = loop
        core = native_core(loop)
        self._probe: Probe | None = None if core is None else core.probe
        # when the outstanding ping was sent; how late the last one was
        self._sent_s: float | None = None
        self._late_s = 0.0

    @property
    def needs_pings(self) -> bool:
        """Whether the loop has no heartbeat, so that `send_ping` must be called every `PING_S`."""
        return self._probe is None or self._probe.level < HEARTBEAT_LEVEL

    def send_ping(self) -> None:
        """Send the next ping if the last one has arrived."""
        if self._sent_s is None:
            self._sent_s = time.monotonic()
            try:
                self._loop.call_soon_threadsafe(self._receive_ping)
            except RuntimeError:
                # a closed loop runs nothing any more
                self._sent_s, self._late_s = None, 0.0

    def _receive_ping(self) -> None:
        sent_s, self._sent_s = self._sent_s, None
        if sent_s is not None:
            self._late_s = time.monotonic() - sent_s

    def read(self) -> tuple[float, bool]:
        """Return for how long one callback has blocked the loop, in seconds, and whether the loop is overloaded."""
        if self._probe is None or self.needs_pings:
            waited_s = 0.0 if self._sent_s is None or not self._loop.is_running() else time.monotonic() - self._sent_s
            return waited_s, is_overloaded(self._loop) or self._late_s > LATE_S
        turn_since_ns, callback_since_ns, *_ = self._probe.heartbeat.read()
        now_ns = time.monotonic_ns()
        blocked_s = (now_ns - callback_since_ns) / 1e9 if callback_since_ns else 0.0
        turn_s = (now_ns - turn_since_ns) / 1e9 if turn_since_ns else 0.0
        return blocked_s, is_overloaded(self._loop) or turn_s - blocked_s > LATE_S
