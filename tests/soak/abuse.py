"""Hostile and broken clients of a server, and the latency of a well-behaved one meanwhile.

`serving()` starts `penstock serve` in a process of its own; an attack is an async context; `Probe` is the client that
behaves. The tests that use them are long in tests/soak and short in tests/e2e.
"""

import asyncio
import contextlib
import json
import os
import random
import resource
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterator
from http.client import HTTPConnection
from pathlib import Path
from statistics import quantiles
from typing import Any, Self

from penstock.runtime.supervisor.rundir import attach_sockets
from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]
PATIENCE_S = 30.0
PROBE_EVERY_S = 0.02
RESET = struct.pack("ii", 1, 0)
Address = tuple[str, int]


class Server:
    """`penstock serve` of tests/soak/abused.py, and what can be seen of it from outside."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = process
        self.address = ("127.0.0.1", port)

    def rss_bytes(self) -> int:
        return int(self._proc("statm").read_text().split()[1]) * resource.getpagesize()

    def descriptors(self) -> dict[str, str]:
        """Return what each open descriptor stands for, by its number."""
        found = {}
        for link in self._proc("fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                found[link.name] = os.readlink(link)
        return found

    def sockets(self) -> int:
        """Return how many sockets are open: the listening one, the loop's own and one for each connection."""
        return sum(what.startswith("socket:") for what in self.descriptors().values())

    def cpu_s(self) -> float:
        return time.clock_gettime((~self.process.pid << 3) | 2)

    def allow_descriptors(self, count: int) -> None:
        _, hard = resource.prlimit(self.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(self.process.pid, resource.RLIMIT_NOFILE, (count, hard))

    def get(self, path: str) -> bytes:
        with contextlib.closing(HTTPConnection(*self.address, timeout=PATIENCE_S)) as connection:
            connection.request("GET", path)
            return connection.getresponse().read()

    def gate(self) -> dict[str, Any]:
        """The gate's statistics; whoever asks is in it itself."""
        (found,) = json.loads(self.get("/statistics")).values()
        return dict(found)

    def wait_until_sockets(self, most: int) -> None:
        """Wait until the connections are closed. Other descriptors may be opened once, by the first client shed."""
        deadline_s = time.monotonic() + PATIENCE_S
        while (found := self.sockets()) > most:
            assert time.monotonic() < deadline_s, (
                f"{found} sockets are open after the attack, {most} before it: {self.descriptors()}"
            )
            time.sleep(0.05)

    def _proc(self, name: str) -> Path:
        return Path(f"/proc/{self.process.pid}/{name}")


@contextlib.contextmanager
def serving(*options: str, limit: str = "64", deadline_s: float = 1.0) -> Iterator[Server]:
    """A server with keys set as `pressure.receive_s=2`; its output is shown when it ends by itself."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    port = free_port()
    command = [sys.executable, "-m", "penstock", "serve", "tests.soak.abused:app", "--port", str(port)]
    command += ["--no-access-log", "--limit", limit, "--deadline", str(deadline_s)]
    command += [word for option in options for word in ("--set", option)]
    path = os.pathsep.join(filter(None, [str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": path}, start_new_session=True)
    try:
        server = Server(process, port)
        _wait_until_it_answers(server)
        _wait_until_it_can_be_attached_to(server)
        yield server
        assert process.poll() is None, f"the server has ended by itself: {process.returncode}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_until_it_can_be_attached_to(server: Server) -> None:
    """Wait for the attach socket, so that it is no new one after an attack."""
    deadline_s = time.monotonic() + PATIENCE_S
    while server.process.pid not in attach_sockets(os.environ):
        assert time.monotonic() < deadline_s, "the server has no attach socket"
        time.sleep(0.02)


def _wait_until_it_answers(server: Server) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            server.get("/")
            return
        except OSError:
            assert server.process.poll() is None, "the server has not started: see its message above"
            assert time.monotonic() < deadline_s, "the server does not answer"
            time.sleep(0.05)


class Probe:
    """A client that behaves: a request each 20 ms over one connection that stays. Latencies are in seconds."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.latencies_s: list[float] = []
        self.failures: Counter[str] = Counter()
        self._streams: Any = None

    async def run_for(self, seconds: float) -> float:
        """Ask for so long; how long an answer took, of which nine in ten took less."""
        self.latencies_s, end_s = [], time.monotonic() + seconds
        while (began_s := time.monotonic()) < end_s:
            await self._ask()
            self.latencies_s.append(time.monotonic() - began_s)
            await asyncio.sleep(max(0.0, began_s + PROBE_EVERY_S - time.monotonic()))
        return quantiles(self.latencies_s, n=10)[-1]

    async def _ask(self) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                if self._streams is None:
                    self._streams = await asyncio.open_connection(*self.address)
                reader, writer = self._streams
                writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
                head = await reader.readuntil(b"\r\n\r\n")
                if not head.startswith(b"HTTP/1.1 200"):
                    raise OSError(head.partition(b"\r\n")[0].decode())
                await reader.readexactly(5)
        except (OSError, EOFError, TimeoutError) as error:
            self.failures[repr(error)] += 1
            await self.close()

    async def close(self) -> None:
        if self._streams is not None:
            _, writer = self._streams
            self._streams = None
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


# --- attacks: each goes on while its context is open


class Slowloris:
    """Connections that begin a request and do not end it: half of them go on by a byte now and then, half are silent.

    Whoever is disconnected comes anew, until `renews` is False.
    """

    def __init__(self, address: Address, count: int) -> None:
        self.address, self.count = address, count
        self.renews = True
        self.begun = 0
        self._socks: list[socket.socket] = []

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._drip())
        while len(self._socks) < self.count:
            await asyncio.sleep(0.01)
        return self

    async def __aexit__(self, *_: object) -> None:
        await _cancelled(self._task)
        for sock in self._socks:
            sock.close()

    async def _drip(self) -> None:
        while True:
            while self.renews and len(self._socks) < self.count:
                self._socks.append(await _connect(self.address))
                self.begun += 1
                _sends(self._socks[-1], b"GET / HTTP/1.1\r\nx-slow: ")
            for at, sock in enumerate(self._socks):
                if sock.fileno() % 2:
                    _sends(sock, b"x")
                if at % 100 == 0:
                    await asyncio.sleep(0)
            gone = [sock for sock in self._socks if _is_cut(sock)]
            self._socks = list(set(self._socks) - set(gone))
            for sock in gone:
                sock.close()
            await asyncio.sleep(1.0)


def _is_cut(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _sends(sock: socket.socket, data: bytes) -> None:
    """As far as the other end takes it."""
    with contextlib.suppress(OSError):
        sock.send(data)


@contextlib.asynccontextmanager
async def stopped_now_and_then(server: Server, count: int, stall_s: float) -> AsyncIterator[None]:
    """Connections as of `Slowloris`, and a server that does not run for so long, again and again."""
    async with Slowloris(server.address, count), _meanwhile(_stop(server.process, stall_s)):
        yield


async def _stop(process: subprocess.Popen[bytes], stall_s: float) -> None:
    while True:
        # at any point of the server's turns
        await asyncio.sleep(random.uniform(0.3, 1.0) * stall_s)
        process.send_signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(stall_s)
        finally:
            process.send_signal(signal.SIGCONT)


@contextlib.asynccontextmanager
async def storm_of_resets(address: Address, per_s: int) -> AsyncIterator[None]:
    """Connections that ask for something and are reset at once."""
    async with _meanwhile(_storm(address, per_s)):
        yield


async def _storm(address: Address, per_s: int) -> None:
    began_s, count = time.monotonic(), 0
    while True:
        while count < (time.monotonic() - began_s) * per_s:
            with await _connect(address) as sock:
                _sends(sock, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            count += 1
        await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def never_reading(address: Address, count: int) -> AsyncIterator[None]:
    """Connections that ask for much and read nothing of it."""
    async with connected(address, count, receive_bytes=4096) as socks:
        for sock in socks:
            sock.send(b"GET /big HTTP/1.1\r\nhost: x\r\n\r\n")
        yield


@contextlib.asynccontextmanager
async def connected(address: Address, count: int, receive_bytes: int = 0) -> AsyncIterator[list[socket.socket]]:
    """Connections that do nothing, as far as the server takes them."""
    socks: list[socket.socket] = []
    try:
        for _ in range(count):
            socks.append(await _connect(address, receive_bytes))
        yield socks
    finally:
        for sock in socks:
            sock.close()


async def _connect(address: Address, receive_bytes: int = 0) -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    if receive_bytes:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    try:
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        # cancelled on the way, too: the attack is over
        sock.close()
        raise
    return sock


@contextlib.asynccontextmanager
async def _meanwhile(attack: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(attack)
    try:
        yield
    finally:
        await _cancelled(task)


async def _cancelled(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
