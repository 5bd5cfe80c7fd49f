"""Both ends of a connection for the transport tests: a recording protocol on a transport, a raw socket as its peer."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any


class Recorder(asyncio.Protocol):
    """Writes down each callback; `until(predicate)` waits for what is written, without polling."""

    def __init__(self, keep_open: bool | None = None) -> None:
        self.events: list[str] = []
        self.data = bytearray()
        self.chunks: list[bytes] = []
        self.error: Exception | None = None
        self.keep_open = keep_open
        self.transport: Any = None
        self.waiting: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    def note(self, event: str) -> None:
        self.events.append(event)
        self.wake()

    def wake(self) -> None:
        for predicate, waiter in self.waiting:
            if not waiter.done() and predicate():
                waiter.set_result(None)

    async def until(self, predicate: Callable[[], bool]) -> None:
        if not predicate():
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.waiting.append((predicate, waiter))
            await waiter

    async def until_event(self, event: str) -> None:
        await self.until(lambda: event in self.events)

    async def until_bytes(self, count: int) -> None:
        await self.until(lambda: len(self.data) >= count)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.note("made")

    def data_received(self, data: bytes) -> None:
        self.data += data
        self.chunks.append(data)
        if self.events[-1:] != ["data"]:
            self.events.append("data")
        self.wake()

    def eof_received(self) -> bool | None:
        self.note("eof")
        return self.keep_open

    def pause_writing(self) -> None:
        self.note("pause")

    def resume_writing(self) -> None:
        self.note("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.error = exc
        self.note("lost")


class BufferedRecorder(asyncio.BufferedProtocol):
    """Receives into one buffer of a given size, and keeps what arrived."""

    def __init__(self, size: int = 1024) -> None:
        self.buffer = bytearray(size)
        self.data = bytearray()
        self.hints: list[int] = []
        self.inner = Recorder()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.inner.connection_made(transport)

    def get_buffer(self, sizehint: int) -> bytearray:
        self.hints.append(sizehint)
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data += self.buffer[:nbytes]
        self.inner.data_received(bytes(self.buffer[:nbytes]))

    def eof_received(self) -> None:
        self.inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self.inner.connection_lost(exc)


def socket_pair(family: str = "tcp") -> tuple[socket.socket, socket.socket]:
    """Two connected non-blocking stream sockets: TCP over the loopback, or Unix."""
    if family == "unix":
        one, other = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            other = socket.create_connection(listener.getsockname())
            one, _ = listener.accept()
    one.setblocking(False)
    other.setblocking(False)
    return one, other


@contextlib.asynccontextmanager
async def wired(protocol: Any = None, family: str = "tcp") -> AsyncIterator[tuple[Any, Any, socket.socket]]:
    """A transport with `protocol` (a Recorder if none is given), and the raw socket at the other end."""
    loop = asyncio.get_running_loop()
    ours, peer = socket_pair(family)
    transport, protocol = await loop.connect_accepted_socket(lambda: protocol or Recorder(), ours)
    try:
        yield transport, protocol, peer
    finally:
        peer.close()
        if not transport.is_closing():  # asyncio's own transport breaks when aborted after it was lost
            transport.abort()
        await settle()


async def settle(turns: int = 3) -> None:
    """Let what is already scheduled, and what that schedules, run."""
    for _ in range(turns):
        await asyncio.sleep(0)


async def read_exactly(sock: socket.socket, count: int) -> bytes:
    loop = asyncio.get_running_loop()
    data = bytearray()
    while len(data) < count:
        chunk = await loop.sock_recv(sock, count - len(data))
        if not chunk:
            break
        data += chunk
    return bytes(data)


async def read_to_end(sock: socket.socket) -> bytes:
    loop = asyncio.get_running_loop()
    data = bytearray()
    while chunk := await loop.sock_recv(sock, 1 << 18):
        data += chunk
    return bytes(data)


def pattern(size: int) -> bytes:
    """`size` bytes in which every misplaced piece shows."""
    block = b"".join(number.to_bytes(4, "big") for number in range(16384))
    return (block * (size // len(block) + 1))[:size]


async def close_server(server: asyncio.Server) -> None:
    server.close()
    await server.wait_closed()
