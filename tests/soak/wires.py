"""Connections that check themselves: each byte received is the byte the other side sent at that place."""

import asyncio
import errno
import random
from typing import Any

BLOCK = random.Random(1).randbytes(65_521)
STREAM = BLOCK * 40
LARGEST_BYTES = 2_000_000


class PlannedError(Exception):
    """Raised on purpose inside a callback."""


def stretch(start: int, size_bytes: int) -> bytes:
    """The bytes of the endless test stream from `start` on."""
    start %= len(BLOCK)
    return STREAM[start : start + size_bytes]


class Side:
    """One end of a connection: what it sent, what it received, and whether it may have lost something."""

    def __init__(self, world: Any, offset: int) -> None:
        self.world = world
        self.offset = offset
        self.other: Side = self
        self.transport: Any = None
        self.sent_bytes = self.received_bytes = 0
        self.lossy = self.half_closed = self.raises_next = self.writing_paused = self.is_lost = False

    def write(self, size_bytes: int, pieces: int = 1) -> None:
        if self.transport.is_closing() or self.half_closed:
            return
        chunk = stretch(self.offset + self.sent_bytes, size_bytes)
        self.sent_bytes += size_bytes
        if pieces == 1:
            kind = self.world.random.choice([bytes, bytes, bytearray, memoryview])
            self.transport.write(kind(chunk))
            return
        step = max(1, size_bytes // pieces)
        self.transport.writelines([chunk[at : at + step] for at in range(0, size_bytes, step)])

    def end(self, how: str) -> None:
        """`close`, `abort` or `write_eof`."""
        if how == "abort":
            self.lossy = True
        if how == "write_eof":
            if self.half_closed or self.transport.is_closing():
                return
            self.half_closed = True
        try:
            getattr(self.transport, how)()
        except OSError as exc:
            # The peer was faster.
            self.world.expect(exc.errno == errno.ENOTCONN, f"{how}: {exc!r}")

    def made(self, transport: Any) -> None:
        self.transport = transport
        self.world.sides.add(self)
        self.write(self.world.random.choice([0, 1, 5000, 200_000]))

    def take(self, data: Any) -> None:
        size_bytes = len(data)
        expected = stretch(self.other.offset + self.received_bytes, size_bytes)
        self.world.expect(bytes(data) == expected, f"wrong bytes from {self.received_bytes} on")
        self.world.expect(not self.is_lost, "data after connection_lost")
        self.received_bytes += size_bytes
        self.world.received_bytes += size_bytes
        if self.raises_next:
            self.raises_next, self.lossy = False, True
            raise PlannedError
        self.world.meddle(self)

    def eof(self) -> bool:
        whole = self.other.sent_bytes == self.received_bytes
        self.world.expect(whole or self.other.lossy, f"EOF after {self.received_bytes} of {self.other.sent_bytes}")
        return self.world.random.random() < 0.5

    def lost(self, error: Exception | None) -> None:
        self.world.expect(not self.is_lost, "connection_lost twice")
        self.world.expect(error is None or isinstance(error, OSError | PlannedError), f"lost by {error!r}")
        self.is_lost = True
        self.lossy |= error is not None
        self.world.sides.discard(self)

    def pause_writing(self, paused: bool) -> None:
        self.world.expect(self.writing_paused is not paused, "pause_writing and resume_writing do not alternate")
        self.writing_paused = paused


class Shared:
    """The common part of both kinds of protocol."""

    def __init__(self, side: Side) -> None:
        self.side = side

    def connection_made(self, transport: Any) -> None:
        self.side.made(transport)

    def eof_received(self) -> bool:
        return self.side.eof()

    def connection_lost(self, error: Exception | None) -> None:
        self.side.lost(error)

    def pause_writing(self) -> None:
        self.side.pause_writing(True)

    def resume_writing(self) -> None:
        self.side.pause_writing(False)


class Plain(Shared, asyncio.Protocol):
    """Receives bytes."""

    def data_received(self, data: bytes) -> None:
        self.side.take(data)


class Lending(Shared, asyncio.BufferedProtocol):
    """Lends a new buffer of another size for each read."""

    def get_buffer(self, sizehint: int) -> bytearray:
        self.buffer = bytearray(self.side.world.random.choice([1, 100, 4096, 300_000]))
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.side.take(self.buffer[:nbytes])
