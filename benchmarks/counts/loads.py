"""The servers whose requests are counted, and a load of one request or burst at a time on each connection."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

__all__ = ["SERVED", "Served", "exchange"]

ECHOED = b"x" * 1023 + b"\n"
SILENCE_S = 60
GET = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Served:
    """A server's module and kind, a request, and the end of its answer; with a burst, the requests are datagrams."""

    module: str
    kind: str
    request: bytes
    end: bytes
    connections: int = 10
    burst: int = 0

    @property
    def requests(self) -> int:
        """The requests of a round."""
        return self.connections * (self.burst or 1)

    def opened(self, port: int) -> socket.socket:
        """Return a connected client."""
        if self.burst:
            client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            client.settimeout(SILENCE_S)
            client.connect(("127.0.0.1", port))
            return client
        client = socket.create_connection(("127.0.0.1", port), timeout=SILENCE_S)
        return _unverified().wrap_socket(client) if "tls" in self.kind.split("-") else client

    def send(self, client: socket.socket) -> None:
        """Send a request, or a burst of them."""
        for _ in range(self.burst or 1):
            client.sendall(self.request)

    def receive(self, client: socket.socket) -> None:
        """Receive the whole answer to what `send` has sent."""
        if self.burst:
            for _ in range(self.burst):
                client.recv(64 * 1024)
            return
        while not client.recv(64 * 1024).endswith(self.end):
            pass


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _echo(kind: str, connections: int = 10, burst: int = 0) -> Served:
    return Served("benchmarks.net.echo", kind, ECHOED, b"\n", connections, burst)


def _http(kind: str) -> Served:
    return Served("benchmarks.http.serve", kind, GET, b"World!", 50)


SERVED = {
    "echo protocol 10 x 1 KiB": _echo("protocol"),
    "echo BufferedProtocol 10 x 1 KiB": _echo("buffered"),
    "echo streams 10 x 1 KiB": _echo("streams"),
    "echo sock_* 10 x 1 KiB": _echo("sock"),
    "uvicorn plaintext, 50 connections": _http("uvicorn"),
    "TLS: echo 10 x 1 KiB": _echo("tls"),
    "TLS: echo streams 10 x 1 KiB": _echo("tls-streams"),
    "TLS: uvicorn plaintext, 50 connections": _http("uvicorn-tls"),
    "UDP: echo 10 x 1 KiB": _echo("udp", 10, 1),
    "UDP: echo in bursts of 64 x 1 KiB": _echo("udp", 1, 64),
}


@contextmanager
def exchange(port: int, served: Served) -> Iterator[Callable[[int], None]]:
    """Yield a function that sends rounds of requests, one or a burst on each connection, and awaits their answers."""
    with ExitStack() as stack:
        clients = [stack.enter_context(served.opened(port)) for _ in range(served.connections)]

        def rounds(count: int) -> None:
            for _ in range(count):
                for client in clients:
                    served.send(client)
                for client in clients:
                    served.receive(client)

        yield rounds
