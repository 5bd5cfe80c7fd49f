"""asyncio's server over listeners in memory, and what stands where a socket would."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.testing.memorytransport import MemoryTransport
    from penstock.testing.network import Network

__all__ = ["MemoryServer", "MemorySocket"]


class MemorySocket:
    """A listening address as programs ask a socket for it: `getsockname()`, and little else. `fileno()` is -1."""

    type = socket.SOCK_STREAM
    proto = 0

    def __init__(self, address: Any) -> None:
        self._address = address
        self.family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET

    def __repr__(self) -> str:
        return f"<MemorySocket {self._address!r}>"

    def getsockname(self) -> Any:
        """The address: (host, port), or a path."""
        return self._address

    def fileno(self) -> int:
        """No descriptor stands behind it."""
        return -1


class MemoryServer(asyncio.AbstractServer):
    """A server on a `Network`, by asyncio's rules. A connection made while it does not accept waits, connected."""

    def __init__(self, network: Network, addresses: list[Any], protocol_factory: Callable[[], Any]) -> None:
        self._network = network
        self._loop = network.loop
        self._addresses = addresses
        self._protocol_factory = protocol_factory
        self._serving = self._accepting = False
        self._closed = False
        # a dict, as its order does not depend on addresses in memory
        self._clients: dict[MemoryTransport, None] = {}
        self._backlog: deque[MemoryTransport] = deque()
        self._waiters: list[asyncio.Future[None]] = []
        self._forever: asyncio.Future[None] | None = None
        for address in addresses:
            network.listen(address, self)

    def __repr__(self) -> str:
        return f"<MemoryServer {self._addresses!r}{' closed' if self._closed else ''}>"

    @property
    def sockets(self) -> tuple[Any, ...]:
        """What it listens on."""
        return () if self._closed else tuple(MemorySocket(address) for address in self._addresses)

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The loop."""
        return self._loop

    def is_serving(self) -> bool:
        """Whether connections are accepted."""
        return self._serving

    def arrive(self, transport: MemoryTransport) -> None:
        """From the network: a connection."""
        self._backlog.append(transport)
        self._accept()

    def left(self, transport: MemoryTransport) -> None:
        """From the network: a connection is gone."""
        self._clients.pop(transport, None)
        if transport in self._backlog:
            self._backlog.remove(transport)
        self._look_at_end()

    def begin(self) -> None:
        """Accept from now on."""
        self._serving = self._accepting = True
        self._accept()

    def pause_accepting(self) -> None:
        """Leave new connections in the backlog."""
        self._accepting = False

    def resume_accepting(self) -> None:
        """Take what waits in the backlog, and accept again."""
        self._accepting = self._serving
        self._accept()

    def _accept(self) -> None:
        while self._accepting and self._backlog:
            transport = self._backlog.popleft()
            try:
                protocol = self._protocol_factory()
            except Exception as error:
                self._loop.call_exception_handler(
                    {"message": "Error on transport creation for incoming connection", "exception": error}
                )
                transport.abort()
                continue
            self._clients[transport] = None
            transport.start(protocol)

    async def start_serving(self) -> None:
        """Accept from now on."""
        if self._closed:
            raise RuntimeError(f"server {self!r} is closed")
        self.begin()
        await asyncio.sleep(0)

    async def serve_forever(self) -> None:
        """Accept until cancelled, then close."""
        if self._forever is not None:
            raise RuntimeError(f"server {self!r} is already being awaited on serve_forever()")
        if self._closed:
            raise RuntimeError(f"server {self!r} is closed")
        self.begin()
        self._forever = self._loop.create_future()
        try:
            await self._forever
        except asyncio.CancelledError:
            try:
                self.close()
                await self.wait_closed()
            finally:
                raise
        finally:
            self._forever = None

    def close(self) -> None:
        """Listen no more; connections go on, those not accepted yet are reset."""
        if self._closed:
            return
        self._closed = True
        self._serving = self._accepting = False
        for address in self._addresses:
            self._network.unlisten(address)
        for transport in list(self._backlog):
            transport.abort()
        if self._forever is not None and not self._forever.done():
            self._forever.cancel()
        self._look_at_end()

    def close_clients(self) -> None:
        """Close every connection."""
        for transport in list(self._clients):
            transport.close()

    def abort_clients(self) -> None:
        """Abort every connection."""
        for transport in list(self._clients):
            transport.abort()

    async def wait_closed(self) -> None:
        """Wait until it is closed and its connections are gone."""
        if self._is_over():
            return
        waiter = self._loop.create_future()
        self._waiters.append(waiter)
        await waiter

    def _is_over(self) -> bool:
        return self._closed and not self._clients

    def _look_at_end(self) -> None:
        if self._is_over():
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)
