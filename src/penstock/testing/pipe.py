"""One direction of a connection in memory: bytes under way, in their order, at their time.

Knows a link's figures and two ends; what a protocol is, only the transports know.
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

__all__ = ["End", "Receiver", "Wire"]


class End(Enum):
    """What ends a direction: `EOF`, no more bytes will come; `RESET`, the connection is gone."""

    EOF = "eof"
    RESET = "reset"


class Receiver(Protocol):
    """The transport that a wire leads to, and the one that it comes from."""

    def on_arrival(self, item: bytes | End) -> None:
        """Bytes or an end have come."""

    def on_room(self) -> None:
        """There is room to send again."""


class Wire:
    """Carries bytes one way. `held_bytes` are sent and not yet read; `cut` holds everything back until it is mended."""

    def __init__(self, loop: asyncio.AbstractEventLoop, link: Link, dice: Random | None) -> None:
        self.link = link
        self.sent_bytes = 0
        self.held_bytes = 0
        self.cut = False
        self.sender: Receiver
        self.receiver: Receiver
        self.on_sent: Callable[[], object] | None = None
        self._loop = loop
        self._dice = dice
        self._moving: deque[tuple[float, bytes | End]] = deque()
        self._alarm: asyncio.Handle | None = None
        self._free_s = self._last_s = loop.time()
        self._told = False

    def send(self, data: memoryview) -> int:
        """Take what fits, and say how many bytes that was."""
        room = min(len(data), self.link.buffer_bytes - self.held_bytes, self.piece_bytes())
        if room <= 0:
            return 0
        now_s = self._loop.time()
        self._free_s = max(now_s, self._free_s) + room / self.link.bytes_per_s
        self.sent_bytes += room
        self.held_bytes += room
        self._put(bytes(data[:room]), self._free_s)
        if self.on_sent is not None:
            self.on_sent()
        return room

    def end(self, how: End) -> None:
        """Send an end behind what is under way."""
        self._put(how, max(self._free_s, self._loop.time()))

    def read(self, count_bytes: int) -> None:
        """The receiver has read so many bytes: there is room again."""
        self.held_bytes -= count_bytes
        self.tell_room()

    def tell_room(self) -> None:
        """Have the sender try again in the next turn."""
        if not self._told:
            self._told = True
            self._loop.call_soon(self._on_room)

    def piece_bytes(self) -> int:
        """How much one write or read may be."""
        most = self.link.segment_bytes
        if most is None:
            return self.link.buffer_bytes
        return most if self._dice is None else self._dice.randint(1, most)

    def delay_s(self) -> float:
        """How long what is sent now is under way."""
        jitter_s = self.link.jitter_s
        if jitter_s:
            jitter_s *= 0.5 if self._dice is None else self._dice.random()
        return self.link.latency_s + jitter_s

    def mend(self) -> None:
        """Let what was held back arrive."""
        self.cut = False
        self._set()

    def _put(self, item: bytes | End, sent_s: float) -> None:
        self._last_s = max(self._last_s, sent_s + self.delay_s())
        self._moving.append((self._last_s, item))
        self._set()

    def _set(self) -> None:
        if self._alarm is not None or not self._moving or self.cut:
            return
        at_s = self._moving[0][0]
        if at_s <= self._loop.time():
            self._alarm = self._loop.call_soon(self._arrive)
        else:
            self._alarm = self._loop.call_at(at_s, self._arrive)

    def _arrive(self) -> None:
        self._alarm = None
        now_s = self._loop.time()
        while self._moving and self._moving[0][0] <= now_s and not self.cut:
            self.receiver.on_arrival(self._moving.popleft()[1])
        self._set()

    def _on_room(self) -> None:
        self._told = False
        self.sender.on_room()
