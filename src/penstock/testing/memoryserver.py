"""asyncio's server on the network in memory, and a stand-in for its listening socket."""

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
    """A stand-in for a listening socket, with its address and family; `fileno()` is -1."""

    type = socket.SOCK_STREAM
    proto = 0

    def __init__(self, address: Any) -> None:
        self._address = address
        self.family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET

    def __repr__(self) -> str:
        return f"<MemorySocket {self._address!r}>"

    def getsockname(self) -> Any:
        """Return the address: (host, port), or a path."""
        return self._address

    def fileno(self) -> int:
        """Return -1: there is no descriptor."""
        return -1


class MemoryServer(asyncio.AbstractServer):
    """A server on a `Network`, by asyncio's rules. While it does not accept, new connections wait in its backlog."""

    def __init__(self, network: Network, addresses: list[Any], protocol_factory: Callable[[], Any]) -> None:
        self._network = network
        self._loop = network.loop
        self._addresses = addresses
        self._protocol_factory = protocol_factory
        self._serving = self._accepting = False
        self._closed = False
        # a dict: a set's order would depend on addresses
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
        """The listening sockets."""
        return () if self._closed else tuple(MemorySocket(address) for address in self._addresses)

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop."""
        return self._loop

    def is_serving(self) -> bool:
        """Return whether the server accepts connections."""
        return self._serving

    def on_connection(self, transport: MemoryTransport) -> None:
        """Accept a new connection, or keep it in the backlog."""
        self._backlog.append(transport)
        self._accept()

    def on_connection_lost(self, transport: MemoryTransport) -> None:
        """Forget a connection that has ended."""
        self._clients.pop(transport, None)
        if transport in self._backlog:
            self._backlog.remove(transport)
        self._check_end()

    def begin(self) -> None:
        """Accept connections from now on."""
        self._serving = self._accepting = True
        self._accept()

    def pause_accepting(self) -> None:
        """Leave new connections in the backlog."""
        self._accepting = False

    def resume_accepting(self) -> None:
        """Accept the connections of the backlog, and new ones."""
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
        """Accept connections from now on. Raises RuntimeError if the server is closed."""
        if self._closed:
            raise RuntimeError(f"server {self!r} is closed")
        self.begin()
        await asyncio.sleep(0)

    async def serve_forever(self) -> None:
        """Accept connections until cancelled, then close. Raises RuntimeError if closed or already awaited."""
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
        """Stop listening. Accepted connections go on; the backlog's are reset."""
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
        self._check_end()

    def close_clients(self) -> None:
        """Close every connection."""
        for transport in list(self._clients):
            transport.close()

    def abort_clients(self) -> None:
        """Abort every connection."""
        for transport in list(self._clients):
            transport.abort()

    async def wait_closed(self) -> None:
        """Wait until the server is closed and its connections have ended."""
        if self._is_over():
            return
        waiter = self._loop.create_future()
        self._waiters.append(waiter)
        await waiter

    def _is_over(self) -> bool:
        return self._closed and not self._clients

    def _check_end(self) -> None:
        if self._is_over():
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)
