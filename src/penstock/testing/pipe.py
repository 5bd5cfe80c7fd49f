"""One direction of a connection in memory: bytes in flight, delivered in order and in time.

It has a link's properties and two ends. It does not know protocols.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from random import Random

    from penstock.testing.link_profile import Link

__all__ = ["Pipe", "PipeEnd", "StreamEnd"]


class StreamEnd(Enum):
    """The end of a direction: `EOF`, no more bytes will come; `RESET`, the connection is gone."""

    EOF = "eof"
    RESET = "reset"


class PipeEnd(Protocol):
    """A transport at either end of a pipe."""

    def on_arrival(self, item: bytes | StreamEnd) -> None:
        """Receive bytes or an end."""

    def on_room(self) -> None:
        """Send on: there is room again."""


class Pipe:
    """Carries bytes one way. `unread_bytes` are sent and not yet read; while `cut` is true nothing arrives."""

    def __init__(self, loop: asyncio.AbstractEventLoop, link: Link, dice: Random | None) -> None:
        self.link = link
        self.sent_bytes = 0
        self.unread_bytes = 0
        self.cut = False
        self.sender: PipeEnd
        self.receiver: PipeEnd
        self.on_sent: Callable[[], object] | None = None
        self._loop = loop
        self._dice = dice
        self._in_flight: deque[tuple[float, bytes | StreamEnd]] = deque()
        self._timer: asyncio.Handle | None = None
        self._idle_at_s = self._last_arrival_s = loop.time()
        self._room_notified = False

    def send(self, data: memoryview) -> int:
        """Send as many bytes as fit, and return their number."""
        room = min(len(data), self.link.buffer_bytes - self.unread_bytes, self.segment_bytes())
        if room <= 0:
            return 0
        now_s = self._loop.time()
        self._idle_at_s = max(now_s, self._idle_at_s) + room / self.link.bytes_per_s
        self.sent_bytes += room
        self.unread_bytes += room
        self._put(bytes(data[:room]), self._idle_at_s)
        if self.on_sent is not None:
            self.on_sent()
        return room

    def end(self, end: StreamEnd) -> None:
        """Send an end behind the bytes in flight."""
        self._put(end, max(self._idle_at_s, self._loop.time()))

    def read(self, count_bytes: int) -> None:
        """Account for bytes that the receiver has read, and notify the sender of the room."""
        self.unread_bytes -= count_bytes
        self.notify_room()

    def notify_room(self) -> None:
        """Have the sender try again in the next turn."""
        if not self._room_notified:
            self._room_notified = True
            self._loop.call_soon(self._on_room)

    def segment_bytes(self) -> int:
        """Return the most bytes that one write or read may have."""
        most = self.link.segment_bytes
        if most is None:
            return self.link.buffer_bytes
        return most if self._dice is None else self._dice.randint(1, most)

    def delay_s(self) -> float:
        """Return how long an item that is sent now is in flight, in seconds."""
        jitter_s = self.link.jitter_s
        if jitter_s:
            jitter_s *= 0.5 if self._dice is None else self._dice.random()
        return self.link.latency_s + jitter_s

    def mend(self) -> None:
        """Undo `cut`, and let the items in flight arrive."""
        self.cut = False
        self._set_timer()

    def _put(self, item: bytes | StreamEnd, sent_s: float) -> None:
        self._last_arrival_s = max(self._last_arrival_s, sent_s + self.delay_s())
        self._in_flight.append((self._last_arrival_s, item))
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None or not self._in_flight or self.cut:
            return
        at_s = self._in_flight[0][0]
        if at_s <= self._loop.time():
            self._timer = self._loop.call_soon(self._deliver)
        else:
            self._timer = self._loop.call_at(at_s, self._deliver)

    def _deliver(self) -> None:
        self._timer = None
        now_s = self._loop.time()
        while self._in_flight and self._in_flight[0][0] <= now_s and not self.cut:
            self.receiver.on_arrival(self._in_flight.popleft()[1])
        self._set_timer()

    def _on_room(self) -> None:
        self._room_notified = False
        self.sender.on_room()
