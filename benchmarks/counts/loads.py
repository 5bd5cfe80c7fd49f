"""The servers whose requests are counted, and a load of one request at a time on each of ten connections."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

__all__ = ["SERVED", "Served", "exchange"]

ECHOED = b"x" * 1023 + b"\n"
GET = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Served:
    """A server's module and kind, a request, and the end of its answer."""

    module: str
    kind: str
    request: bytes
    end: bytes
    connections: int = 10


SERVED = {
    "echo protocol 10 x 1 KiB": Served("benchmarks.net.echo", "protocol", ECHOED, b"\n"),
    "echo BufferedProtocol 10 x 1 KiB": Served("benchmarks.net.echo", "buffered", ECHOED, b"\n"),
    "echo streams 10 x 1 KiB": Served("benchmarks.net.echo", "streams", ECHOED, b"\n"),
    "echo sock_* 10 x 1 KiB": Served("benchmarks.net.echo", "sock", ECHOED, b"\n"),
    "uvicorn plaintext, 50 connections": Served("benchmarks.http.serve", "uvicorn", GET, b"World!", 50),
}


@contextmanager
def exchange(port: int, served: Served) -> Iterator[Callable[[int], None]]:
    """Yield a function that sends rounds of requests, one on each connection, and awaits their answers."""
    with ExitStack() as stack:
        opened = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(served.connections)]
        sockets = [stack.enter_context(each) for each in opened]

        def rounds(count: int) -> None:
            for _ in range(count):
                for each in sockets:
                    each.sendall(served.request)
                for each in sockets:
                    while not each.recv(64 * 1024).endswith(served.end):
                        pass

        yield rounds
