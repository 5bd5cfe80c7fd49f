"""Connecting: asyncio's `create_connection` in fewer steps, for a TCP connection without TLS and special wishes.

What this leaves to asyncio's own method: TLS, a socket of the program, a local address, happy eyeballs, debug mode, and
every loop and socket with methods other than their own.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import socket
import sys
from asyncio import base_events
from errno import EALREADY, EINPROGRESS, EINTR
from typing import TYPE_CHECKING, Any

from penstock.loop.calls.sockets import SocketCalls
from penstock.loop.native import native_core

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Connecting"]

# What only asyncio's own method does, with its default. Python 3.11 has no `all_errors`.
WISHES: dict[str, Any] = {
    "ssl": None,
    "sock": None,
    "local_addr": None,
    "server_hostname": None,
    "ssl_handshake_timeout": None,
    "ssl_shutdown_timeout": None,
    "happy_eyeballs_delay": None,
    "interleave": None,
    "all_errors": False,
}
# asyncio's create_connection reaches the loop through these.
SEAMS = frozenset(
    ("_ensure_resolved", "_connect_sock", "sock_connect", "_create_connection_transport", "_make_socket_transport")
)
SOCKET, CONNECT, CONNECT_EX = socket.socket, socket.socket.connect, socket.socket.connect_ex
MOST_PORT = 0xFFFF
UNDER_WAY = (EINPROGRESS, EALREADY, EINTR)
# From 3.15 on a transport calls its protocol in one context.
HAS_CONTEXT = sys.version_info >= (3, 15)


class Connecting(asyncio.BaseEventLoop):
    """Mixin, before the reactor and asyncio's loop in the bases; for classes with an `_is_final` of their own."""

    async def create_connection(  # type: ignore[override]
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        host: Any = None,
        port: Any = None,
        *,
        family: int = 0,
        proto: int = 0,
        flags: int = 0,
        ssl: Any = None,
        sock: Any = None,
        local_addr: Any = None,
        server_hostname: Any = None,
        ssl_handshake_timeout: Any = None,
        ssl_shutdown_timeout: Any = None,
        happy_eyeballs_delay: Any = None,
        interleave: Any = None,
        all_errors: Any = False,
    ) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        """Connect to a TCP server, as asyncio's method does, with its arguments and exceptions."""
        given = locals()
        wishes = {name: given[name] for name, default in WISHES.items() if given[name] is not default}
        if wishes or (host is None and port is None) or not self._takes_short_way():
            return await super().create_connection(
                protocol_factory, host, port, family=family, proto=proto, flags=flags, **wishes
            )
        self._check_closed()  # type: ignore[attr-defined]
        infos = _numeric(host, port, family, proto)
        if infos is None:
            infos = await self._ensure_resolved(  # type: ignore[attr-defined]
                (host, port),
                family=family,
                type=socket.SOCK_STREAM,
                proto=proto,
                flags=flags,
                loop=self,
            )
        return await self._open_transport(await self._connect_first(infos), protocol_factory)

    def _takes_short_way(self) -> bool:
        return (
            "_is_final" in type(self).__dict__
            and not self._debug  # type: ignore[attr-defined]
            and SEAMS.isdisjoint(self.__dict__)
            and vars(base_events)["socket"] is socket
            and socket.socket is SOCKET
            and SOCKET.connect is CONNECT
            and SOCKET.connect_ex is CONNECT_EX
            and type(self).sock_connect is SocketCalls.sock_connect
        )

    async def _connect_first(self, infos: list[Any]) -> socket.socket:
        """Return a socket that is connected to the first address that answers."""
        exceptions = []
        try:
            for info in infos:
                try:
                    return await self._connect_to(info)
                except OSError as exc:
                    exceptions.append(exc)
            raise _combined(exceptions)
        finally:
            # as they refer to this frame
            exceptions = []

    async def _connect_to(self, info: Any) -> socket.socket:
        """Return a socket that is connected to an address."""
        family, kind, proto, _, address = info
        sock = SOCKET(family, kind | socket.SOCK_NONBLOCK, proto)
        try:
            if not (_is_loopback(address) and _connected_at_once(sock, address)):
                await self.sock_connect(sock, address)
        except BaseException:
            sock.close()
            raise
        return sock

    async def _open_transport(
        self, sock: socket.socket, protocol_factory: Callable[[], asyncio.BaseProtocol]
    ) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        """Make the protocol and its transport, and wait until the protocol has it."""
        try:
            context = contextvars.copy_context() if HAS_CONTEXT else None
            protocol = protocol_factory()
            waiter = self.create_future()
            transport: Any = native_core(self).make_connected(sock, protocol, waiter, context)  # type: ignore[union-attr]
        except BaseException:
            sock.close()
            raise
        try:
            await waiter
        except BaseException:
            transport.close()
            raise
        return transport, protocol


def _numeric(host: Any, port: Any, family: int, proto: int) -> list[Any] | None:
    """Return what `_ensure_resolved` answers for a plain numeric address; None for all others."""
    if family or proto or type(host) is not str or type(port) is not int:
        return None
    if host[-1:].isdigit() and ":" not in host:
        try:
            socket.inet_pton(socket.AF_INET, host)
        except OSError:
            return None
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))]
    return None


def _is_loopback(address: Any) -> bool:
    host: str = address[0]
    port: int = address[1]
    return 0 <= port <= MOST_PORT and (host.startswith("127.") or host == "::1")


def _connected_at_once(sock: socket.socket, address: Any) -> bool:
    """Connect on this machine, which the kernel does within the call, though it says that it is under way."""
    number = sock.connect_ex(address)
    if number not in UNDER_WAY:
        if number:
            raise OSError(number, os.strerror(number))
        return True
    number = sock.connect_ex(address)
    if number in UNDER_WAY:
        return False
    if number:
        raise OSError(number, f"Connect call failed {address}")
    return True


def _combined(exceptions: list[OSError]) -> OSError:
    """Return the exception for the failures at several addresses, as asyncio's."""
    if not exceptions:
        return OSError("getaddrinfo() returned empty list")
    model = str(exceptions[0])
    if all(str(exc) == model for exc in exceptions):
        return exceptions[0]
    return OSError(f"Multiple exceptions: {', '.join(str(exc) for exc in exceptions)}")
