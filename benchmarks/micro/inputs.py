"""Rows of descriptors and names: readers, new connections, numeric addresses, pipes and child processes."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from asyncio.subprocess import PIPE
from typing import cast

from benchmarks.micro.case import Case, Loop

__all__ = ["CASES"]

CONNECTIONS = 32
WRITE_BYTES, MIB, GIB = 64 * 1024, 1 << 20, 1 << 30


def getaddrinfo(loop: Loop, count: int) -> None:
    async def main() -> None:
        for _ in range(count):
            await loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)

    loop.run_until_complete(main())


def reader_ping(loop: Loop, count: int) -> None:
    """Send a byte to and fro over a socket pair, each end with a reader."""
    ends, left = socket.socketpair(), count

    def answer(end: socket.socket) -> None:
        nonlocal left
        end.recv(1)
        left -= 1
        if left > 0:
            end.send(b"x")
        else:
            loop.stop()

    for end in ends:
        end.setblocking(False)
        loop.add_reader(end.fileno(), answer, end)
    ends[0].send(b"x")
    loop.run_forever()
    for end in ends:
        loop.remove_reader(end.fileno())
        end.close()


def open_connection(loop: Loop, count: int) -> int:
    """Open and close streams to a listener, and return the time in ns, without that of the peer's end."""
    with socket.create_server(("127.0.0.1", 0), backlog=CONNECTIONS) as listener:
        return sum(_connections_ns(loop, listener) for _ in range(count // CONNECTIONS))


def _connections_ns(loop: Loop, listener: socket.socket) -> int:
    async def main() -> None:
        for _ in range(CONNECTIONS):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            await writer.wait_closed()

    port = listener.getsockname()[1]
    began_ns = time.process_time_ns()
    loop.run_until_complete(main())
    took_ns = time.process_time_ns() - began_ns
    for _ in range(CONNECTIONS):
        listener.accept()[0].close()
    return took_ns


class PipeReader(asyncio.Protocol):
    """The reading end of a pipe; `done` is set when `wanted` bytes are there."""

    def __init__(self, loop: Loop, wanted: int) -> None:
        self.left, self.done = wanted, loop.create_future()

    def data_received(self, data: bytes) -> None:
        self.left -= len(data)
        if self.left == 0:
            self.done.set_result(None)


class PipeWriter(asyncio.Protocol):
    """The writing end of a pipe, which writes until `left` is 0, and pauses with the transport."""

    transport: asyncio.WriteTransport

    def __init__(self, left: int) -> None:
        self.left, self.is_paused, self.data = left, False, b"x" * WRITE_BYTES

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.WriteTransport, transport)
        self.write()

    def write(self) -> None:
        while self.left and not self.is_paused:
            self.left -= WRITE_BYTES
            self.transport.write(self.data)

    def pause_writing(self) -> None:
        self.is_paused = True

    def resume_writing(self) -> None:
        self.is_paused = False
        self.write()


def pipe(loop: Loop, count: int) -> None:
    """Send `count` MiB through a pipe, both ends on the loop."""

    async def main() -> None:
        out, into = os.pipe()
        reader = PipeReader(loop, count * MIB)
        reading, _ = await loop.connect_read_pipe(lambda: reader, os.fdopen(out, "rb", 0))
        writing, _ = await loop.connect_write_pipe(lambda: PipeWriter(count * MIB), os.fdopen(into, "wb", 0))
        await reader.done
        writing.close()
        reading.close()
        await asyncio.sleep(0)

    loop.run_until_complete(main())


def spawn(loop: Loop, count: int) -> None:
    async def main() -> None:
        for _ in range(count):
            process = await asyncio.create_subprocess_exec("true")
            await process.wait()

    loop.run_until_complete(main())


def spawn_large(loop: Loop, count: int) -> int:
    """Start `true` from a process with 1 GiB of memory in use, each page of it touched."""
    held = b"x" * GIB
    began_ns = time.process_time_ns()
    spawn(loop, count)
    took_ns = time.process_time_ns() - began_ns
    del held
    return took_ns


def communicate(loop: Loop, count: int) -> None:
    """Send 10 MiB through `cat` and back."""

    async def main() -> None:
        data = b"x" * (10 * MIB)
        for _ in range(count):
            process = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
            out, _ = await process.communicate(data)
            if len(out) != len(data):
                raise AssertionError(f"{len(out)} bytes came back")

    loop.run_until_complete(main())


CASES: dict[str, Case] = {
    "getaddrinfo of a numeric address": Case(getaddrinfo, counted=400),
    "add_reader ping-pong": Case(reader_ping),
    "open_connection": Case(open_connection, step=CONNECTIONS, counted=128),
    "pipe: a MiB": Case(pipe, counted=8),
    "spawn of true": Case(spawn, counted=0),
    "spawn of true at 1 GiB": Case(spawn_large, counted=0),
    "communicate 10 MiB": Case(communicate, counted=0),
}
