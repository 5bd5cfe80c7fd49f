"""The virtual loop's methods for servers and connections, on the network in memory."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from penstock.testing.memoryserver import MemoryServer
from penstock.testing.network import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from penstock.testing.memorytransport import MemoryTransport
    from penstock.testing.network import Network

__all__ = ["MemoryNetworking"]


class MemoryNetworking:
    """A mixin of the virtual loop. Options that concern the kernel alone (families, reuse) are ignored."""

    network: Network

    async def create_server(
        self,
        protocol_factory: Callable[[], Any],
        host: str | Sequence[str] | None = None,
        port: int | None = None,
        *,
        sock: Any = None,
        ssl: Any = None,
        start_serving: bool = True,
        **kernel_options: Any,
    ) -> Any:
        """Return a server on a port of the network in memory.

        `port` None or 0 is the next free one. Raises OSError (EADDRINUSE) if the port is taken, and
        NotImplementedError for `sock` and `ssl`.
        """
        _require_memory(sock, ssl)
        hosts = [host] if host is None or isinstance(host, str) else list(host)
        addresses: list[Any] = []
        for name in hosts:
            # one port for all hosts: programs read it from the first socket
            addresses.append(self.network.address(name, port or (addresses[0][1] if addresses else None)))
        return self._serve(protocol_factory, addresses, start_serving)

    async def create_unix_server(
        self,
        protocol_factory: Callable[[], Any],
        path: Any = None,
        *,
        sock: Any = None,
        ssl: Any = None,
        start_serving: bool = True,
        **kernel_options: Any,
    ) -> Any:
        """Return a server on a path, which is only a name here. Raises OSError (EADDRINUSE) if the path is taken."""
        _require_memory(sock, ssl)
        return self._serve(protocol_factory, [str(path)], start_serving)

    def _serve(self, protocol_factory: Callable[[], Any], addresses: list[Any], start: bool) -> MemoryServer:
        server = MemoryServer(self.network, addresses, protocol_factory)
        if start:
            server.begin()
        return server

    async def create_connection(
        self,
        protocol_factory: Callable[[], Any],
        host: str | None = None,
        port: int | None = None,
        *,
        sock: Any = None,
        ssl: Any = None,
        local_addr: Any = None,
        **kernel_options: Any,
    ) -> Any:
        """Connect to `port`, a number, of the network in memory. Return the transport and the protocol.

        Raises ConnectionRefusedError if no server listens there, ValueError without a port, and NotImplementedError
        for `sock` and `ssl`.
        """
        _require_memory(sock, ssl)
        if not port:
            raise ValueError(f"create_connection(host={host!r}, port={port!r}): a port is needed")
        name = LOOPBACK if host in {None, "", "localhost", "::1"} else str(host)
        return await self._connect(protocol_factory, (name, port), local_addr)

    async def create_unix_connection(
        self,
        protocol_factory: Callable[[], Any],
        path: Any = None,
        *,
        sock: Any = None,
        ssl: Any = None,
        **kernel_options: Any,
    ) -> Any:
        """Connect to a path of the network in memory. Return the transport and the protocol.

        Raises ConnectionRefusedError if no server listens there.
        """
        _require_memory(sock, ssl)
        return await self._connect(protocol_factory, str(path), None)

    async def _connect(
        self, protocol_factory: Callable[[], Any], address: Any, local: Any
    ) -> tuple[MemoryTransport, Any]:
        transport = await self.network.connect(address, local)
        try:
            protocol = protocol_factory()
        except BaseException:
            transport.abort()
            raise
        # the caller goes on after connection_made
        made = self.network.loop.create_future()
        transport.start(protocol)
        self.network.loop.call_soon(_complete, made)
        try:
            await made
        except BaseException:
            transport.abort()
            raise
        return transport, protocol

    async def getaddrinfo(self, host: Any, port: Any, **hints: Any) -> list[Any]:
        """Return the host as its own address."""
        name = LOOPBACK if host in {None, "", "localhost"} else host
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (name, port or 0))]

    async def getnameinfo(self, sockaddr: Any, flags: int = 0) -> tuple[str, str]:
        """Return the address as its own name."""
        return str(sockaddr[0]), str(sockaddr[1])


def _complete(made: Any) -> None:
    if not made.done():
        made.set_result(None)


def _require_memory(sock: Any, ssl: Any) -> None:
    if sock is not None:
        raise NotImplementedError("VirtualLoop: sock= is a descriptor; give a host and a port, which live in memory")
    if ssl:
        raise NotImplementedError("VirtualLoop: its connections are not encrypted; leave ssl= out")
