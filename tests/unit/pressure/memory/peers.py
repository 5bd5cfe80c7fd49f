"""Recording servers, and clients as raw sockets, which read and send only when the test does."""

import asyncio
import contextlib
import socket
from typing import Any, Self

from tests.loop.wire import Recorder

# Small, so that the transport's own queue fills soon.
KERNEL_BYTES = 8 * 1024


class Accepted(Recorder):
    """A server-side protocol; `on_made(self)` and `on_data(self, data)` are the service."""

    def __init__(self, on_made: Any = None, on_data: Any = None, high_bytes: int | None = None) -> None:
        super().__init__()
        self.on_made, self.on_data, self.high_bytes = on_made, on_data, high_bytes

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if self.high_bytes is not None:
            transport.set_write_buffer_limits(self.high_bytes)
        if self.on_made is not None:
            self.on_made(self)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.on_data is not None:
            self.on_data(self, data)

    @property
    def is_paused(self) -> bool:
        return self.events.count("pause") > self.events.count("resume")


class Service:
    """A server on the loopback, its accepted protocols and its clients."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args, self.kwargs = args, kwargs
        self.sides: list[Accepted] = []
        self.clients: list[socket.socket] = []
        self.server: Any = None
        self.arrived: asyncio.Queue[Accepted] = asyncio.Queue()

    def accept(self) -> Accepted:
        side = Accepted(*self.args, **self.kwargs)
        self.sides.append(side)
        self.arrived.put_nowait(side)
        return side

    async def connect(self, kernel_bytes: int = KERNEL_BYTES) -> tuple[Accepted, socket.socket]:
        """Open a connection. Return its server-side protocol and a client socket with that receive buffer."""
        loop = asyncio.get_running_loop()
        client = socket.socket()
        client.setblocking(False)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, kernel_bytes)
        self.clients.append(client)
        await loop.sock_connect(client, self.server.sockets[0].getsockname())
        side = await self.arrived.get()
        await side.until_event("made")
        return side, client

    async def __aenter__(self) -> Self:
        listener = socket.create_server(("127.0.0.1", 0), backlog=200)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BYTES)
        self.server = await asyncio.get_running_loop().create_server(self.accept, sock=listener)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        for client in self.clients:
            client.close()
        for side in self.sides:
            if side.transport is not None:
                side.transport.abort()
                await side.until_event("lost")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.server.wait_closed(), 1)


async def swallow(sock: socket.socket) -> int:
    """Read until the end or a reset of the connection. Return the count of bytes."""
    loop, count = asyncio.get_running_loop(), 0
    with contextlib.suppress(ConnectionError):
        while data := await loop.sock_recv(sock, 1 << 16):
            count += len(data)
    return count
