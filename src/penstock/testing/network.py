"""A network in memory: listeners, connections and faults.

Ports are numbers and hosts are names. Nothing here opens a descriptor.
"""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING, Any, Protocol

from penstock.testing.memorytransport import MemoryTransport
from penstock.testing.pipe import Pipe

if TYPE_CHECKING:
    from random import Random

    from penstock.testing.link_profile import Link

__all__ = ["LOOPBACK", "Connection", "MemoryListener", "Network"]

LOOPBACK = "127.0.0.1"
ANY_HOST = "0.0.0.0"
FIRST_FREE_PORT = 49152


class MemoryListener(Protocol):
    """The server behind an address."""

    def on_connection(self, transport: MemoryTransport) -> None:
        """Take a new connection's transport."""

    def on_connection_lost(self, transport: MemoryTransport) -> None:
        """Forget a connection that has ended."""


class Connection:
    """Two transports, `client` and `server`, and the pipes between them."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        client: MemoryTransport,
        server: MemoryTransport,
        pipes: tuple[Pipe, Pipe],
    ) -> None:
        self._loop = loop
        self.client = client
        self.server = server
        self._pipes = pipes
        self._reset_planned = False
        if pipes[0].link.reset_after_bytes is not None:
            for pipe in pipes:
                pipe.on_sent = self._check_reset

    @property
    def sent_bytes(self) -> int:
        """Bytes sent so far, both directions together."""
        return sum(pipe.sent_bytes for pipe in self._pipes)

    def reset(self) -> None:
        """Reset both ends, as a router does that has lost the connection."""
        for end in (self.client, self.server):
            end.reset()

    def _check_reset(self) -> None:
        most = self._pipes[0].link.reset_after_bytes
        if most is not None and self.sent_bytes >= most and not self._reset_planned:
            self._reset_planned = True
            # in the next turn: this one is in the middle of a write
            self._loop.call_soon(self.reset)

    def cut(self) -> None:
        """Let nothing arrive on either side from now on; neither side is notified."""
        for pipe in self._pipes:
            pipe.cut = True

    def mend(self) -> None:
        """Undo `cut`: the delayed bytes arrive."""
        for pipe in self._pipes:
            pipe.mend()

    def half_open(self) -> None:
        """Abort the client without a notice to the server, as when a machine loses its power."""
        self.cut()
        self.client.abort()


class Network:
    """The listeners and connections of one virtual loop: `loop.network`.

    `link` has the properties of new connections; `set_link` gives a port its own.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, link: Link, dice: Random | None) -> None:
        self.loop = loop
        self.link = link
        self._dice = dice
        self._links: dict[Any, Link] = {}
        self._listeners: dict[Any, MemoryListener] = {}
        self._connections: dict[MemoryTransport, Connection] = {}
        self._last_port = FIRST_FREE_PORT - 1

    @property
    def connections(self) -> list[Connection]:
        """The connections with at least one open end, oldest first."""
        return list(dict.fromkeys(self._connections.values()))

    def set_link(self, link: Link, *, port: int | str) -> None:
        """Set the properties of new connections to this `port`: a number, or the path of a Unix socket."""
        self._links[port] = link

    def address(self, host: str | None, port: int | None) -> tuple[str, int]:
        """Return a listener's address: without a host it is every host, `port` 0 or None is the next free one."""
        name = {None: ANY_HOST, "": ANY_HOST, "::": ANY_HOST, "localhost": LOOPBACK, "::1": LOOPBACK}.get(host)
        return name or str(host), port or self._free_port()

    def listen(self, address: Any, listener: MemoryListener) -> None:
        """Give a listener the connections to this address. Raises OSError (EADDRINUSE) if the address is taken."""
        if address in self._listeners:
            raise OSError(errno.EADDRINUSE, f"error while attempting to bind on address {address!r}: in use")
        self._listeners[address] = listener

    def unlisten(self, address: Any) -> None:
        """Refuse connections to this address from now on."""
        self._listeners.pop(address, None)

    async def connect(self, address: Any, local: Any = None) -> MemoryTransport:
        """Connect, in twice the latency, and return the client's transport. Raises ConnectionRefusedError."""
        link = self._links.get(address if isinstance(address, str) else address[1], self.link)
        pipes = Pipe(self.loop, link, self._dice), Pipe(self.loop, link, self._dice)
        if link.latency_s or link.jitter_s:
            await asyncio.sleep(pipes[0].delay_s())
        listener = self._listener(address)
        client = None if listener is None else self._join(address, local, pipes, listener)
        try:
            if link.latency_s or link.jitter_s:
                await asyncio.sleep(pipes[1].delay_s())
        except asyncio.CancelledError:
            if client is not None:
                client.abort()
            raise
        if client is None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"Connect call failed {address!r}: no server listens")
        return client

    def _listener(self, address: Any) -> MemoryListener | None:
        found = self._listeners.get(address)
        if found is None and not isinstance(address, str):
            found = self._listeners.get((ANY_HOST, address[1]))
        return found

    def _join(self, address: Any, local: Any, pipes: tuple[Pipe, Pipe], listener: MemoryListener) -> MemoryTransport:
        there, back = pipes
        if isinstance(address, str):
            local = ""
        elif local is None:
            local = LOOPBACK, self._free_port()
        client = MemoryTransport(
            self.loop,
            there,
            back,
            extra={"peername": address, "sockname": local},
            on_lost=self._forget,
            reads=there.link.client_reads,
        )
        accepted = MemoryTransport(
            self.loop,
            back,
            there,
            extra={"peername": local, "sockname": address},
            on_lost=lambda transport: self._lose(transport, listener),
        )
        connection = Connection(self.loop, client, accepted, pipes)
        self._connections[client] = self._connections[accepted] = connection
        listener.on_connection(accepted)
        return client

    def _forget(self, transport: MemoryTransport) -> None:
        self._connections.pop(transport, None)

    def _lose(self, transport: MemoryTransport, listener: MemoryListener) -> None:
        self._forget(transport)
        listener.on_connection_lost(transport)

    def _free_port(self) -> int:
        taken = {address[1] for address in self._listeners if not isinstance(address, str)}
        self._last_port += 1
        while self._last_port in taken:
            self._last_port += 1
        return self._last_port
