"""The other end of a TLS connection: an engine over a raw socket. What it sends can be cut, changed or left out."""

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any

from ..wire import Recorder, socket_pair

RESET = struct.pack("ii", 1, 0)
HEADER_BYTES = 5
# for the end of a connection whose test has failed
PATIENCE_S = 5.0
Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


class Peer:
    """One side of a TLS connection, which does nothing by itself."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, is_server: bool, **options: Any) -> None:
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        if not is_server:
            options.setdefault("server_hostname", "localhost")
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=is_server, **options)

    async def send(self, wire: bytes) -> None:
        """Send bytes as they are."""
        await asyncio.get_running_loop().sock_sendall(self.sock, wire)

    async def receive(self) -> bytes:
        """Feed what has come to the engine, and return it; b"" at the end."""
        wire = await asyncio.get_running_loop().sock_recv(self.sock, 1 << 18)
        self.incoming.write(wire) if wire else self.incoming.write_eof()
        return wire

    async def call(self, method: Callable[..., Any], *args: Any) -> Any:
        """Call the engine until it needs no more bytes of the other side."""
        while True:
            try:
                return method(*args)
            except ssl.SSLWantReadError:
                await self.send(self.outgoing.read())
                await self.receive()
            finally:
                wire = self.outgoing.read()
                if wire:
                    with contextlib.suppress(OSError):
                        await self.send(wire)

    async def handshake(self) -> None:
        await self.call(self.tls.do_handshake)

    async def read(self, most: int = 1 << 18) -> bytes:
        return await self.call(self.tls.read, most)

    async def read_exactly(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            chunk = await self.read(count - len(data))
            assert chunk, "close_notify came too early"
            data += chunk
        return bytes(data)

    async def read_to_end(self) -> bytes:
        """Return what comes before close_notify."""
        data = bytearray()
        while chunk := await self.read():
            data += chunk
        return bytes(data)

    async def write(self, data: bytes) -> None:
        await self.send(self.records(data))

    def records(self, data: bytes) -> bytes:
        """Return the encrypted records, unsent."""
        for start in range(0, len(data), 1 << 20):
            self.tls.write(data[start : start + (1 << 20)])
        return self.outgoing.read()

    def close_notify(self) -> bytes:
        """Return close_notify as a record, unsent."""
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLSyscallError):
            self.tls.unwrap()
        return self.outgoing.read()

    async def close(self) -> None:
        """End the connection as TLS has it: wait for the other side's close_notify."""
        with contextlib.suppress(OSError):
            await self.call(self.tls.unwrap)
        self.sock.close()

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.sock.close()


def is_asyncios(transport: Any) -> bool:
    """Whether the TLS of a transport is asyncio's code."""
    return type(transport).__module__.startswith("asyncio")


def recorder_of(protocol: Any) -> Recorder:
    found: Recorder = getattr(protocol, "inner", protocol)
    return found


def peer_of(sock: socket.socket, contexts: Contexts, side: str, **options: Any) -> Peer:
    """Return the peer of a transport on `side`."""
    return Peer(sock, contexts[1 if side == "server" else 0], is_server=side == "client", **options)


def connect(sock: socket.socket, contexts: Contexts, side: str, protocol: Any, **options: Any) -> Any:
    """Return the awaitable of a TLS transport over a connected socket."""
    loop = asyncio.get_running_loop()
    if side == "server":
        return loop.connect_accepted_socket(lambda: protocol, sock, ssl=contexts[0], **options)
    options.setdefault("server_hostname", "localhost")
    return loop.create_connection(lambda: protocol, sock=sock, ssl=contexts[1], **options)


async def shake(peer: Peer) -> None:
    """Complete the peer's handshake, which a transport that is aborted at once cuts off."""
    with contextlib.suppress(ssl.SSLEOFError, ConnectionResetError):
        await peer.handshake()


@contextlib.asynccontextmanager
async def secured(
    contexts: Contexts,
    side: str = "server",
    protocol: Any = None,
    *,
    peer: dict[str, Any] | None = None,
    **options: Any,
) -> AsyncIterator[tuple[Any, Any, Peer]]:
    """A TLS transport on `side` with `protocol` (a Recorder if none is given), and its peer, the handshake done."""
    protocol = protocol or Recorder()
    ours, theirs = socket_pair()
    other = peer_of(theirs, contexts, side, **(peer or {}))
    (transport, _), _ = await asyncio.gather(connect(ours, contexts, side, protocol, **options), shake(other))
    try:
        yield transport, protocol, other
    finally:
        other.sock.close()
        recorder = recorder_of(protocol)
        if "lost" not in recorder.events:
            transport.abort()
        await asyncio.wait_for(recorder.until_event("lost"), PATIENCE_S)


@contextlib.asynccontextmanager
async def unsecured(contexts: Contexts, side: str) -> AsyncIterator[tuple[asyncio.Task[Any], Recorder, Peer]]:
    """The task that makes a TLS transport on `side`, its protocol, and the peer, which has sent nothing yet."""
    ours, theirs = socket_pair()
    protocol = Recorder()
    task = asyncio.ensure_future(connect(ours, contexts, side, protocol))
    try:
        yield task, protocol, peer_of(theirs, contexts, side)
    finally:
        theirs.close()
        if not task.done():
            task.cancel()
        await asyncio.wait([task])
        if not task.cancelled() and task.exception() is None:
            task.result()[0].abort()
            await protocol.until_event("lost")
