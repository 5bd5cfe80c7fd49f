"""Random operations on many connections, timers, descriptors, threads and children, checked throughout.

    python -m tests.soak.stress --seconds 60 --seed 1 [--loop asyncio]

It ends with exit code 1 and a list of what was wrong, if anything was; at its end every descriptor is closed and every
object of the run is gone. The seed fixes the choices, not the kernel's timing.
"""

import argparse
import asyncio
import contextlib
import errno
import gc
import os
import random
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter, deque
from typing import Any

from penstock.loop import EventLoop
from penstock.loop.native import native_core
from tests.soak.wires import LARGEST_BYTES, Lending, Plain, PlannedError, Side

SIDES = 60
SIZES = [0, 1, 100, 1460, 5000, 65_536, 300_000, LARGEST_BYTES]
RESET = struct.pack("ii", 1, 0)


class World:
    """One run: the loop, the open connections, and what was found wrong."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seed: int) -> None:
        # tasks made while the level was off have no record until their next step
        self.level_changed = False
        self.loop, self.random = loop, random.Random(seed)
        self.sides: set[Side] = set()
        self.links: dict[int, Side] = {}
        self.wrong: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.received_bytes = 0
        self.contexts: Any = None
        self.timers: list[tuple[Any, list[bool]]] = []
        self.pipes: list[tuple[int, int]] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.over = False
        loop.set_exception_handler(self.problem)

    def expect(self, holds: bool, what: str) -> None:
        if not holds:
            self.wrong[what] += 1

    def problem(self, _: object, context: dict[str, Any]) -> None:
        error = context.get("exception")
        # A half-close that the peer's reset came before is an error in a callback, with asyncio as well.
        expected = isinstance(error, PlannedError) or getattr(error, "errno", None) == errno.ENOTCONN
        # tasks are lost on purpose
        expected = expected or context["message"] == "Task was destroyed but it is pending!"
        self.expect(expected, f"{context['message']}: {error!r}")

    def side(self) -> Side | None:
        return self.random.choice(tuple(self.sides)) if self.sides else None

    def spawn(self, coroutine: Any) -> None:
        task = self.loop.create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    # --- connections

    def protocol(self, side: Side) -> asyncio.BaseProtocol:
        return self.random.choice([Plain, Lending])(side)

    def new_link(self) -> tuple[Side, Side]:
        one, two = (Side(self, self.random.randrange(100_000)) for _ in range(2))
        one.other, two.other = two, one
        return one, two

    async def serve(self) -> asyncio.Server:
        def accepted() -> asyncio.BaseProtocol:
            # Which link it is shows with the peer's port, once there is a transport.
            return Accepted(self)

        return await self.loop.create_server(accepted, "127.0.0.1", 0, backlog=200)

    async def connect_tcp(self) -> None:
        here, there = self.new_link()
        sock = socket.socket()
        sock.setblocking(False)
        sock.bind(("127.0.0.1", 0))
        self.links[sock.getsockname()[1]] = there
        with contextlib.suppress(OSError):
            await self.loop.sock_connect(sock, self.address)
            await self.loop.create_connection(lambda: self.protocol(here), sock=sock)
            return
        sock.close()

    async def connect_unix(self) -> None:
        for side, sock in zip(self.new_link(), socket.socketpair(), strict=True):
            sock.setblocking(False)
            await self.loop.create_connection(lambda side=side: self.protocol(side), sock=sock)

    def op_connect(self) -> None:
        if len(self.sides) < SIDES:
            self.spawn(self.random.choice([self.connect_tcp, self.connect_unix])())

    def op_write(self) -> None:
        side = self.side()
        if side and side.transport.get_write_buffer_size() < 2 * LARGEST_BYTES:
            side.write(self.random.choice(SIZES), self.random.choice([1, 1, 1, 3, 200]))

    def op_pause(self) -> None:
        if side := self.side():
            side.transport.pause_reading()
            self.loop.call_later(self.random.random() / 20, side.transport.resume_reading)

    def op_resume(self) -> None:
        if side := self.side():
            side.transport.resume_reading()

    def op_end(self) -> None:
        if side := self.side():
            side.end(self.random.choice(["close", "abort", "write_eof", "write_eof"]))

    def op_reset(self) -> None:
        if (side := self.side()) and not side.transport.is_closing():
            sock = side.transport.get_extra_info("socket")
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            side.end("abort")

    def op_protocol(self) -> None:
        if (side := self.side()) and not side.transport.is_closing():
            side.transport.set_protocol(self.protocol(side))

    def op_limits(self) -> None:
        if side := self.side():
            side.transport.set_write_buffer_limits(self.random.choice([0, 1, 1000, 100_000, None]))

    def op_raise(self) -> None:
        if side := self.side():
            side.raises_next = True

    def meddle(self, side: Side) -> None:
        """Inside a read callback: now and then, do something to the very transport that is reading."""
        chance = self.random.random()
        if chance < 0.01:
            side.transport.pause_reading()
            self.loop.call_soon(side.transport.resume_reading)
        elif chance < 0.02:
            side.end("close")
        elif chance < 0.025:
            side.end("abort")
        elif chance < 0.03 and not side.transport.is_closing():
            side.transport.set_protocol(self.protocol(side))
        elif chance < 0.2:
            side.write(self.random.choice(SIZES[:5]))

    # --- callbacks and timers

    def op_soon(self) -> None:
        seen: list[int] = []
        handles = [self.loop.call_soon(seen.append, number) for number in range(self.random.randrange(50))]
        gone = {number for number in range(len(handles)) if self.random.random() < 0.2}
        for number in gone:
            handles[number].cancel()
        expected = [number for number in range(len(handles)) if number not in gone]
        self.loop.call_soon(callback=lambda: self.expect(seen == expected, "call_soon: order or cancel"))

    def op_many_arguments(self) -> None:
        count = self.random.randrange(7)
        self.loop.call_soon(lambda *args: self.expect(args == tuple(range(count)), "arguments"), *range(count))

    def op_fail(self) -> None:
        def fail() -> None:
            raise PlannedError

        self.random.choice([self.loop.call_soon, lambda call: self.loop.call_later(0.001, call)])(fail)

    def op_timer(self) -> None:
        for _ in range(self.random.choice([1, 1, 1, 300])):
            cancelled = [False]
            due_s = self.loop.time() + self.random.choice([-1, 0, 0.001, 0.01, 0.2]) * self.random.random()
            self.timers.append((self.loop.call_at(due_s, self.fired, due_s, cancelled), cancelled))

    def fired(self, due_s: float, cancelled: list[bool]) -> None:
        self.expect(not cancelled[0], "a cancelled timer fired")
        self.expect(self.loop.time() >= due_s - 1e-6, "a timer fired early")

    def op_cancel(self) -> None:
        self.random.shuffle(self.timers)
        for _ in range(len(self.timers) * 3 // 4):
            handle, cancelled = self.timers.pop()
            cancelled[0] = True
            handle.cancel()

    def op_tasks(self) -> None:
        """Tasks that end, fail, are cancelled, or are lost, each while others read the records."""
        for _ in range(self.random.randrange(8)):
            task = self.loop.create_task(self.some_task())
            task.add_done_callback(lambda task: task.cancelled() or task.exception())
            if self.random.random() < 0.3:
                self.loop.call_soon(task.cancel)

    async def some_task(self) -> None:
        choice = self.random.random()
        if choice < 0.4:
            await asyncio.sleep(self.random.random() / 100)
        elif choice < 0.6:
            await asyncio.gather(asyncio.sleep(0), asyncio.sleep(0.001))
        elif choice < 0.7:
            raise LookupError
        elif choice < 0.8:
            # nobody holds it: lost at the next collection
            await self.loop.create_future()

    def op_telemetry(self) -> None:
        probe = getattr(self.loop, "_probe", None)
        if probe is None:
            return
        snapshot = native_core(self.loop).snapshot_tasks()  # type: ignore[attr-defined]
        tasks = {snapshot[at][1]() for at in range(len(snapshot))} - {None}
        if probe.level and not self.level_changed:
            self.expect(asyncio.all_tasks(self.loop) <= tasks, "a task without a record")
        probe.ledger.sweep(0), probe.ledger.site_counts(), probe.ledger.times_ns()
        if probe.flight is not None:
            probe.flight.read(0)
        if self.random.random() < 0.02:
            self.level_changed = True
            probe.set_level(self.random.randrange(4))

    def op_collect(self) -> None:
        gc.collect(self.random.randrange(3))

    # --- descriptors

    def op_pipe(self) -> None:
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.loop.add_reader(reader, self.drain, reader)
        if self.random.random() < 0.5:
            self.loop.add_writer(writer, self.fill, writer)
        self.pipes.append((reader, writer))

    def drain(self, fd: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(fd, 4096)

    def fill(self, fd: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(fd, b"x" * 100)
        self.loop.remove_writer(fd)

    def op_close_pipe(self) -> None:
        if self.pipes:
            self.close_pipe(*self.pipes.pop(self.random.randrange(len(self.pipes))))

    def close_pipe(self, reader: int, writer: int) -> None:
        # Closing first is a mistake that asyncio forgives; no other descriptor comes between.
        late = self.random.random() < 0.3
        if late:
            os.close(reader)
        self.loop.remove_reader(reader)
        self.loop.remove_writer(writer)
        os.close(writer)
        if not late:
            os.close(reader)

    # --- children and TLS

    def op_fork(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            signal.alarm(30)
            os._exit(run_child(type(self.loop)))
        self.spawn(self.wait(child))

    async def wait(self, child: int) -> None:
        descriptor = os.pidfd_open(child)
        ended = self.loop.create_future()
        self.loop.add_reader(descriptor, ended.set_result, None)
        ended.add_done_callback(lambda _: self.loop.remove_reader(descriptor))
        await ended
        os.close(descriptor)
        status = os.waitpid(child, 0)[1]
        self.expect(status == 0, f"the forked child ended with {status}")

    def op_tls(self) -> None:
        if self.contexts:
            self.spawn(self.upgrade())

    async def upgrade(self) -> None:
        """A connection goes over to TLS in its middle, and carries a message there and back."""
        message = bytes(self.random.choice(SIZES))
        async with asyncio.timeout(20):
            reader, writer = await asyncio.open_connection(*self.upgrader.sockets[0].getsockname())
            writer.write(b"%7d" % len(message))
            self.expect(await reader.readexactly(2) == b"go", "before TLS")
            await writer.start_tls(self.contexts[1], server_hostname="localhost")
            writer.write(message)
            self.expect(await reader.readexactly(len(message)) == message, "after TLS")
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async def echo_upgraded(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size_bytes = int(await reader.readexactly(7))
        writer.write(b"go")
        await writer.start_tls(self.contexts[0])
        writer.write(await reader.readexactly(size_bytes))
        await reader.read()
        writer.close()

    # --- the run

    async def run(self, seconds: float) -> None:
        server = await self.serve()
        self.upgrader = await asyncio.start_server(self.echo_upgraded, "127.0.0.1", 0)
        self.address = server.sockets[0].getsockname()
        posters = [Poster(self, number) for number in range(3)]
        operations = [(getattr(self, f"op_{name}"), weight) for name, weight in WEIGHTS.items()]
        calls, weights = zip(*operations, strict=True)
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            for call in self.random.choices(calls, weights, k=self.random.randrange(1, 60)):
                self.done[call.__name__] += 1
                call()
            await asyncio.sleep(self.random.choice([0, 0, 0.0005, 0.005]))
        await self.finish(server, posters)

    async def finish(self, server: asyncio.Server, posters: "list[Poster]") -> None:
        for poster in posters:
            await asyncio.to_thread(poster.stop)
        while self.tasks:
            await asyncio.wait(self.tasks, timeout=0.1)
            for side in tuple(self.sides):
                side.end("abort")
        server.close()
        self.upgrader.close()
        for side in tuple(self.sides):
            side.end("abort")
        while self.pipes:
            self.op_close_pipe()
        for handle, _ in self.timers:
            handle.cancel()
        self.timers.clear()
        await asyncio.sleep(0.3)
        self.expect(not self.sides, "connections without connection_lost")
        for poster in posters:
            self.expect(not poster.expected, f"{len(poster.expected)} posts of a thread never ran")
        self.links.clear()


class Accepted(Plain):
    """The accepting end: it learns from the peer's port which connection it is."""

    def __init__(self, world: World) -> None:
        self.world = world

    def connection_made(self, transport: Any) -> None:
        side = self.world.links.pop(transport.get_extra_info("peername")[1], None)
        self.side = side or self.world.new_link()[0]
        if side is None:
            transport.abort()
        super().connection_made(transport)


class Poster(threading.Thread):
    """A thread that posts numbers, in order; some it cancels."""

    def __init__(self, world: World, number: int) -> None:
        super().__init__(name=f"poster-{number}", daemon=True)
        self.world, self.expected, self.over = world, deque[int](), False
        self.random = random.Random(number)
        self.start()

    def run(self) -> None:
        number = 0
        while not self.over:
            for _ in range(self.random.randrange(20)):
                number += 1
                if self.random.random() < 0.2:
                    self.world.loop.call_soon_threadsafe(int).cancel()
                    continue
                self.expected.append(number)
                self.world.loop.call_soon_threadsafe(self.arrived, number)
            time.sleep(self.random.random() / 200)

    def arrived(self, number: int) -> None:
        self.world.expect(bool(self.expected) and self.expected.popleft() == number, "posts out of order")

    def stop(self) -> None:
        self.over = True
        self.join()


WEIGHTS = {
    "connect": 20, "write": 120, "pause": 10, "resume": 10, "end": 6, "reset": 3, "protocol": 6, "limits": 6,
    "raise": 2, "soon": 10, "many_arguments": 10, "fail": 3, "timer": 10, "cancel": 2, "collect": 0.3, "pipe": 5,
    "tasks": 10, "telemetry": 2, "close_pipe": 5, "fork": 0.05, "tls": 0.3,
}  # fmt: skip


def run_child(kind: type[asyncio.AbstractEventLoop]) -> int:
    """In a forked child: a loop of its own does its work."""
    asyncio._set_running_loop(None)
    loop = kind()
    fired: list[int] = []
    for number in range(100):
        loop.call_soon(fired.append, number)
    loop.call_later(0.01, loop.stop)
    loop.run_forever()
    loop.close()
    return int(fired != list(range(100)))


def make_contexts() -> tuple[ssl.SSLContext, ssl.SSLContext] | None:
    """A server's and a client's context around a certificate of our own; None without openssl."""
    with tempfile.TemporaryDirectory() as folder:
        command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=x"
        try:
            pem = ["-keyout", f"{folder}/key", "-out", f"{folder}/pem"]
            environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
            subprocess.run([*command.split(), *pem], check=True, capture_output=True, env=environment)
        except (OSError, subprocess.CalledProcessError):
            return None
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(f"{folder}/pem", f"{folder}/key")
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
        return server, client


def resident_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def stress(kind: type[asyncio.AbstractEventLoop], seconds: float, seed: int, contexts: Any) -> World:
    """One run on a fresh loop; `world.wrong` has what was wrong."""
    loop = kind()
    core = native_core(loop)
    if core is not None:
        core.probe.set_level(3 - seed % 4)
    world = World(loop, seed)
    world.contexts = contexts
    try:
        loop.run_until_complete(world.run(seconds))
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()
    return world


def rounds(kind: type[asyncio.AbstractEventLoop], seconds: float, seed: int, round_s: float = 5) -> dict[str, Any]:
    """Rounds of `round_s` for `seconds` in all; what was wrong, what was left behind, and how memory grew."""
    contexts = make_contexts()
    # The first run fills every pool and cache.
    stress(kind, min(1.0, seconds / 3), seed, contexts)
    samples: list[tuple[float, int]] = []
    wrong: Counter[str] = Counter()
    done: Counter[str] = Counter()
    received_bytes = 0
    fds, objects = len(os.listdir("/proc/self/fd")), count_objects()
    end_s = time.monotonic() + seconds
    while (left_s := end_s - time.monotonic()) > 0.5:
        seed += 1
        world = stress(kind, min(left_s, round_s), seed, contexts)
        wrong += world.wrong
        done += world.done
        received_bytes += world.received_bytes
        del world
        samples.append((time.monotonic(), resident_bytes()))
    leaked_fds, leaked_objects = len(os.listdir("/proc/self/fd")) - fds, count_objects() - objects
    if leaked_fds:
        wrong[f"{leaked_fds} descriptors left open"] += 1
    if leaked_objects > 300:
        wrong[f"{leaked_objects} objects left behind"] += 1
    report = {"wrong": dict(wrong), "operations": dict(done), "received_bytes": received_bytes}
    return report | {"leaked_objects": leaked_objects, "slope_bytes_per_minute": slope(samples) * 60}


def count_objects() -> int:
    for _ in range(3):
        gc.collect()
    # Handles kept for reuse are no leak: there are as many as the busiest turn had, up to a bound.
    return sum(type(each).__module__ != "penstock._core.events.handle" for each in gc.get_objects())


def slope(samples: list[tuple[float, int]]) -> float:
    """Least squares, bytes per second, over the later two thirds; 0.0 when there are too few."""
    samples = samples[len(samples) // 3 :]
    if len(samples) < 3:
        return 0.0
    mean_x = sum(x for x, _ in samples) / len(samples)
    mean_y = sum(y for _, y in samples) / len(samples)
    spread = sum((x - mean_x) ** 2 for x, _ in samples)
    return sum((x - mean_x) * (y - mean_y) for x, y in samples) / spread


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--loop", choices=["penstock", "asyncio"], default="penstock")
    asked = parser.parse_args()
    report = rounds(EventLoop if asked.loop == "penstock" else asyncio.SelectorEventLoop, asked.seconds, asked.seed)
    for name, value in report.items():
        print(f"{name}: {value}")
    return int(bool(report["wrong"]))


if __name__ == "__main__":
    sys.exit(main())
