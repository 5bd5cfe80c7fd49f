"""Out of descriptors, at RLIMIT_NOFILE=64 in a process of its own: who is served, and when the next client comes in."""

import asyncio
import contextlib
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from statistics import median

import pytest

from penstock.config import Config, PressureConfig
from penstock.loop import NATIVE
from penstock.runtime.build import build_loop
from tests.loop.test_servers import no_more_descriptors
from tests.loop.wire import Recorder

pytestmark = pytest.mark.skipif(not NATIVE, reason="asyncio's own loop has asyncio's pause")

LIMIT = 64
PATIENCE_S = 20.0
SERVER = """
import asyncio, sys
from penstock import Config, PressureConfig
from penstock.runtime.build import build_loop

loop = build_loop(Config(pressure=PressureConfig(**eval(sys.argv[1]))))
reports = []
loop.set_exception_handler(lambda loop, context: reports.append(context))

class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(b"%d" % min(len(reports), 9) if data == b"?" else data)

async def main():
    server = await loop.create_server(Echo, "127.0.0.1", 0, backlog=1000)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

loop.run_until_complete(main())
"""


class Few:
    """A server that may have few descriptors, and its clients in the order of their coming."""

    def __init__(self, port: int, clients: contextlib.ExitStack) -> None:
        self._port, self._stack = port, clients
        self.served: list[socket.socket] = []
        self.waiting: list[socket.socket] = []

    def connect(self) -> socket.socket:
        client = self._stack.enter_context(socket.create_connection(("127.0.0.1", self._port), timeout=PATIENCE_S))
        client.sendall(b"x")
        return client

    def fill(self) -> None:
        """More clients than it can have; those it has are told by their answers."""
        clients = [self.connect() for _ in range(LIMIT + 20)]
        for client in clients:
            client.settimeout(PATIENCE_S if len(self.served) < LIMIT // 2 else 0.5)
            with contextlib.suppress(TimeoutError):
                assert client.recv(1) == b"x"
                self.served.append(client)
                continue
            break
        self.waiting = clients[len(self.served) :]
        assert len(self.waiting) >= 20
        for client in clients:
            client.settimeout(PATIENCE_S)

    def replace(self) -> float:
        """Return the seconds from the end of a served connection to the accept of the next."""
        began_s = time.monotonic()
        self.served.pop(0).close()
        client = self.waiting.pop(0)
        assert client.recv(1) == b"x"
        self.served.append(client)
        return time.monotonic() - began_s

    def asks(self, data: bytes = b"x", client: int = -1) -> bytes:
        self.served[client].sendall(data)
        return self.served[client].recv(1)


@pytest.fixture
def few() -> Iterator[Callable[[dict[str, object]], Few]]:
    with contextlib.ExitStack() as stack:

        def start(bounds: dict[str, object]) -> Few:
            process = subprocess.Popen(
                [sys.executable, "-c", SERVER, repr(bounds)],
                stdout=subprocess.PIPE,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            assert process.stdout is not None
            stack.enter_context(process.stdout)
            port = int(process.stdout.readline())
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (LIMIT, LIMIT))
            return Few(port, stack.enter_context(contextlib.ExitStack()))

        yield start


@pytest.mark.parametrize(
    "bounds",
    [{"max_connections": 1000}, {"buffer_bytes": 1 << 26}, {"receive_s": 60.0}, {"lag_high_s": 1.0}],
    ids=lambda bounds: next(iter(bounds)),
)
def test_where_anything_is_bounded_the_next_comes_in_as_one_leaves(few, bounds):
    server = few(bounds)
    server.fill()
    cycles = 10
    took_s = sum(server.replace() for _ in range(cycles))
    # a second for each, else
    assert took_s < cycles / 2
    # told once a second at most, not for each that comes and goes
    assert int(server.asks(b"?")) <= 6


def test_whom_it_has_are_served_meanwhile_as_ever(few):
    server = few({"max_connections": 1000})
    calm = [server.connect() for _ in range(10)]
    for client in calm:
        assert client.recv(1) == b"x"
    server.served = list(calm)
    calm_s = answers(server)
    server.fill()
    server.served = list(calm)
    without_s = answers(server)
    assert without_s < 5 * calm_s + 0.005, f"{without_s * 1e3:.2f} ms without descriptors, {calm_s * 1e3:.2f} ms with"


def answers(server: Few) -> float:
    """The median of what an answer takes, in seconds."""
    took_s = []
    for at in range(200):
        began_s = time.monotonic()
        assert server.asks(client=at % len(server.served)) == b"x"
        took_s.append(time.monotonic() - began_s)
    return median(took_s)


def test_all_come_in_once_there_are_descriptors(few):
    server = few({"max_connections": 1000})
    server.fill()
    for client in server.served[:]:
        client.close()
    for client in server.waiting:
        assert client.recv(1) == b"x"
    # and accepting is as ever
    assert server.connect().recv(1) == b"x"


def test_a_loop_without_bounds_waits_a_second_as_asyncios(few):
    server = few({})
    server.fill()
    assert sum(server.replace() for _ in range(3)) > 1.5


@pytest.mark.parametrize("ends", ["resumed", "closed"])
def test_a_server_paused_or_closed_while_it_waits_for_one_is_as_it_was_told(ends):
    loop, problems, protocol = build_loop(Config(pressure=PressureConfig(max_connections=9))), [], Recorder()
    loop.set_exception_handler(lambda loop, context: problems.append(context))

    async def main() -> None:
        server = await loop.create_server(lambda: protocol, "127.0.0.1", 0)
        with socket.socket() as client:
            client.setblocking(False)
            with no_more_descriptors():
                client.connect_ex(server.sockets[0].getsockname())
                while not problems:
                    await asyncio.sleep(0)
                if ends == "closed":
                    server.close()
                else:
                    server.pause_accepting()
                await asyncio.sleep(1.1)
            assert protocol.events == []
            if ends == "resumed":
                server.resume_accepting()
                await protocol.until_event("made")
        if ends == "resumed":
            await protocol.until_event("lost")
        server.close()

    try:
        loop.run_until_complete(asyncio.wait_for(main(), PATIENCE_S))
    finally:
        loop.close()
    assert len(problems) == 1
