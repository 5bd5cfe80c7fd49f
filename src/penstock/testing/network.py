"""A network in memory: who listens where, who is connected to whom, and faults at will.

Ports are numbers and hosts are names; nothing here opens a descriptor.
"""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING, Any

from penstock.testing.memorytransport import MemoryTransport
from penstock.testing.pipe import Wire

if TYPE_CHECKING:
    from random import Random

    from penstock.testing.link_profile import Link
    from penstock.testing.memoryserver import MemoryServer

__all__ = ["Connection", "Network"]

LOOPBACK = "127.0.0.1"
EVERYWHERE = "0.0.0.0"
FIRST_FREE_PORT = 49152


class Connection:
    """Two ends and what lies between them. `client` and `server` are transports."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        client: MemoryTransport,
        server: MemoryTransport,
        wires: tuple[Wire, Wire],
    ) -> None:
        self._loop = loop
        self.client = client
        self.server = server
        self._wires = wires
        self._reset_planned = False
        if wires[0].link.reset_after_bytes is not None:
            for wire in wires:
                wire.on_sent = self._look_at_limit

    @property
    def sent_bytes(self) -> int:
        """Bytes sent so far, both directions together."""
        return sum(wire.sent_bytes for wire in self._wires)

    def reset(self) -> None:
        """Reset both ends, as a router does that has lost the connection."""
        for end in (self.client, self.server):
            end.reset()

    def _look_at_limit(self) -> None:
        most = self._wires[0].link.reset_after_bytes
        if most is not None and self.sent_bytes >= most and not self._reset_planned:
            self._reset_planned = True
            # later: this comes out of the middle of a write
            self._loop.call_soon(self.reset)

    def cut(self) -> None:
        """From now on nothing arrives, on either side; nobody is told."""
        for wire in self._wires:
            wire.cut = True

    def mend(self) -> None:
        """Undo `cut`: what was held back arrives."""
        for wire in self._wires:
            wire.mend()

    def half_open(self) -> None:
        """The client is gone and the server is never told, as when a machine loses its power."""
        self.cut()
        self.client.abort()


class Network:
    """`loop.network`: the listeners and connections of one virtual loop.

    `link` is how new connections behave; `set_link` gives a port its own.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, link: Link, dice: Random | None) -> None:
        self.loop = loop
        self.link = link
        self._dice = dice
        self._links: dict[Any, Link] = {}
        self._listeners: dict[Any, MemoryServer] = {}
        self._connections: dict[MemoryTransport, Connection] = {}
        self._last_port = FIRST_FREE_PORT - 1

    @property
    def connections(self) -> list[Connection]:
        """The connections of which an end is still there, oldest first."""
        return list(dict.fromkeys(self._connections.values()))

    def set_link(self, link: Link, *, port: int | str) -> None:
        """How new connections to this port (or path) behave."""
        self._links[port] = link

    def address(self, host: str | None, port: int | None) -> tuple[str, int]:
        """A listener's address: no host is every host, port 0 the next free one."""
        name = {None: EVERYWHERE, "": EVERYWHERE, "::": EVERYWHERE, "localhost": LOOPBACK, "::1": LOOPBACK}.get(host)
        return name or str(host), port or self._free_port()

    def listen(self, address: Any, server: MemoryServer) -> None:
        """Let connections to this address come to the server. Raises OSError (EADDRINUSE) if another has it."""
        if address in self._listeners:
            raise OSError(errno.EADDRINUSE, f"error while attempting to bind on address {address!r}: in use")
        self._listeners[address] = server

    def unlisten(self, address: Any) -> None:
        """Refuse from now on."""
        self._listeners.pop(address, None)

    async def connect(self, address: Any, local: Any = None) -> MemoryTransport:
        """Shake hands, in twice the latency, and return the client's end. Raises ConnectionRefusedError."""
        link = self._links.get(address if isinstance(address, str) else address[1], self.link)
        wires = Wire(self.loop, link, self._dice), Wire(self.loop, link, self._dice)
        if link.latency_s or link.jitter_s:
            await asyncio.sleep(wires[0].delay_s())
        server = self._listener(address)
        client = None if server is None else self._join(address, local, wires, server)
        try:
            if link.latency_s or link.jitter_s:
                await asyncio.sleep(wires[1].delay_s())
        except asyncio.CancelledError:
            if client is not None:
                client.abort()
            raise
        if client is None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"Connect call failed {address!r}: nobody listens there")
        return client

    def _listener(self, address: Any) -> MemoryServer | None:
        found = self._listeners.get(address)
        if found is None and not isinstance(address, str):
            found = self._listeners.get((EVERYWHERE, address[1]))
        return found

    def _join(self, address: Any, local: Any, wires: tuple[Wire, Wire], server: MemoryServer) -> MemoryTransport:
        there, back = wires
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
            on_lost=lambda transport: self._leave(transport, server),
        )
        connection = Connection(self.loop, client, accepted, wires)
        self._connections[client] = self._connections[accepted] = connection
        server.arrive(accepted)
        return client

    def _forget(self, transport: MemoryTransport) -> None:
        self._connections.pop(transport, None)

    def _leave(self, transport: MemoryTransport, server: MemoryServer) -> None:
        self._forget(transport)
        server.left(transport)

    def _free_port(self) -> int:
        taken = {address[1] for address in self._listeners if not isinstance(address, str)}
        self._last_port += 1
        while self._last_port in taken:
            self._last_port += 1
        return self._last_port
