"""The echo server of an arm, of one kind. Prints its port, then serves until it is killed.

A kind that ends in `-busy` has a thread beside the loop that runs Python code all the time.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import cast

from benchmarks.arms import new_loop
from benchmarks.net.certificate import server_context
from benchmarks.net.listener import BACKLOG, datagrams_anywhere, listen_anywhere

__all__ = ["KINDS", "main"]

READ_BYTES = 64 * 1024  # asyncio's own stream limit
BUFFER_BYTES = 256 * 1024
Address = tuple[str, int]


class Echo(asyncio.Protocol):
    """A protocol that sends back its input, and pauses reading while the peer does not read."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # transports of other loops are not instances of it

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()


class BufferedEcho(asyncio.BufferedProtocol):
    """A protocol that sends back its input from one buffer.

    It writes a copy: a loop may keep what it cannot send at once, and the buffer is filled again.
    """

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.view = memoryview(bytearray(BUFFER_BYTES))

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.view

    def buffer_updated(self, nbytes: int) -> None:
        self.transport.write(bytes(self.view[:nbytes]))

    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()


class DatagramEcho(asyncio.DatagramProtocol):
    """A protocol that sends back each datagram."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self.transport.sendto(data, addr)


async def echo_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(READ_BYTES):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass  # the client closes in the middle of an exchange
    finally:
        writer.close()


async def echo_socket(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    with connection:
        try:
            while data := await loop.sock_recv(connection, READ_BYTES):
                await loop.sock_sendall(connection, data)
        except ConnectionError:
            pass


async def serve_protocol(factory: Callable[[], asyncio.BaseProtocol]) -> None:
    listener = _announced(listen_anywhere())
    server = await asyncio.get_running_loop().create_server(factory, sock=listener, backlog=BACKLOG)
    await asyncio.get_running_loop().create_future()  # not serve_forever(): rloop would listen twice, and fail
    server.close()


async def serve_tls() -> None:
    listener, context = listen_anywhere(), server_context()
    _announced(listener)
    server = await asyncio.get_running_loop().create_server(Echo, sock=listener, backlog=BACKLOG, ssl=context)
    await asyncio.get_running_loop().create_future()
    server.close()


async def serve_streams(context: ssl.SSLContext | None = None) -> None:
    listener = _announced(listen_anywhere())
    server = await asyncio.start_server(echo_stream, sock=listener, backlog=BACKLOG, ssl=context)
    await asyncio.get_running_loop().create_future()
    server.close()


async def serve_sockets() -> None:
    loop, listener, tasks = asyncio.get_running_loop(), _announced(listen_anywhere()), set()
    listener.setblocking(False)
    while True:
        connection, _ = await loop.sock_accept(listener)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = loop.create_task(echo_socket(connection))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


async def serve_datagrams() -> None:
    sock = _announced(datagrams_anywhere())
    await asyncio.get_running_loop().create_datagram_endpoint(DatagramEcho, sock=sock)
    await asyncio.get_running_loop().create_future()


def _announced(sock: socket.socket) -> socket.socket:
    # before the loop gets the socket: rloop takes over the file descriptor
    print(sock.getsockname()[1], flush=True)
    return sock


KINDS: dict[str, Callable[[], Awaitable[None]]] = {
    "protocol": lambda: serve_protocol(Echo),
    "buffered": lambda: serve_protocol(BufferedEcho),
    "streams": serve_streams,
    "sock": serve_sockets,
    "tls": serve_tls,
    "tls-streams": lambda: serve_streams(server_context()),
    "udp": serve_datagrams,
}
BUSY = "-busy"


def keep_busy() -> None:
    """Run Python code for ever: it holds the GIL until another thread asks for it."""
    while True:
        pass


def main() -> None:
    arm, kind = sys.argv[1:]
    loop = new_loop(arm)
    asyncio.set_event_loop(loop)

    async def serve() -> None:
        if kind.endswith(BUSY):
            threading.Thread(target=keep_busy, daemon=True).start()
        await KINDS[kind.removesuffix(BUSY)]()

    loop.run_until_complete(serve())


if __name__ == "__main__":
    main()
