"""asyncio's `sock_*` methods over native calls: the system call first, then a wait that costs the poller nothing.

Each method is a coroutine, as asyncio's. What the native functions do not take (other types, sockets with a timeout)
is left to asyncio's own method, and so are its errors.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from penstock._core.sockets import accept, call_method, connect, needs_look_up, receive, receive_into, send_all

if TYPE_CHECKING:
    import socket

__all__ = ["SocketCalls"]


class SocketCalls(asyncio.SelectorEventLoop):
    """Mixin, after the reactor and before asyncio's loop in the bases.

    A cancelled call has taken nothing from the socket.
    """

    async def sock_recv(self, sock: socket.socket, n: int) -> Any:
        """Receive at most `n` bytes; b"" at the end of the stream."""
        got = receive(self, sock, n)
        if got.__class__ is bytes:
            return got
        if got is None:
            return await super().sock_recv(sock, n)
        await got
        return got.result

    async def sock_recv_into(self, sock: socket.socket, buf: Any) -> Any:
        """Receive into a writable buffer. Return the number of bytes."""
        got = receive_into(self, sock, buf)
        if got.__class__ is int:
            return got
        if got is None:
            return await super().sock_recv_into(sock, buf)
        await got
        return got.result

    async def sock_recvfrom(self, sock: socket.socket, bufsize: int) -> Any:
        """Receive a datagram of at most `bufsize` bytes. Return it with its sender's address."""
        got = call_method(self, sock, "recvfrom", (bufsize,), False)
        if got.__class__ is tuple:
            return got
        if got is None:
            return await super().sock_recvfrom(sock, bufsize)
        await got
        return got.result

    async def sock_recvfrom_into(self, sock: socket.socket, buf: Any, nbytes: int = 0) -> Any:
        """Receive a datagram into a buffer, at most `nbytes` bytes of it; 0: as many as fit."""
        got = call_method(self, sock, "recvfrom_into", (buf, nbytes or len(buf)), False)
        if got.__class__ is tuple:
            return got
        if got is None:
            return await super().sock_recvfrom_into(sock, buf, nbytes)
        await got
        return got.result

    async def sock_sendall(self, sock: socket.socket, data: Any) -> None:
        """Send all of `data`."""
        sent = send_all(self, sock, data)
        if sent is True:
            return
        if sent is None:
            await super().sock_sendall(sock, data)
            return
        await sent

    async def sock_sendto(self, sock: socket.socket, data: Any, address: Any) -> Any:
        """Send a datagram to `address`. Return the number of bytes."""
        got = call_method(self, sock, "sendto", (data, address), True)
        if got.__class__ is int:
            return got
        if got is None:
            return await super().sock_sendto(sock, data, address)
        await got
        return got.result

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """Connect to `address`. A host name is looked up."""
        unknown = needs_look_up(sock, address)
        if unknown is None:
            await super().sock_connect(sock, address)
            return
        if unknown:
            resolved = await self._ensure_resolved(  # type: ignore[attr-defined]
                address, family=sock.family, type=sock.type, proto=sock.proto, loop=self
            )
            address = resolved[0][4]
        call = connect(self, sock, address)
        if call is not True:
            await call

    async def sock_accept(self, sock: socket.socket) -> Any:
        """Accept a connection. Return its socket, which does not block, and the client's address."""
        got = accept(self, sock)
        if got.__class__ is tuple:
            return got
        if got is None:
            return await super().sock_accept(sock)
        await got
        return got.result
