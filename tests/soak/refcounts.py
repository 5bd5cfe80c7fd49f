"""Reference counts per operation: `python3-dbg -m tests.soak.refcounts`. A debug CPython has sys.gettotalrefcount.

Each case runs many times; what the total grows by, per iteration, is what the case leaks.
"""

import asyncio
import gc
import itertools
import math
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any

from penstock._core.limits.budget import shared_budget
from penstock._core.limits.peer_timeouts import TimeoutBounds
from penstock.loop import NATIVE, EventLoop
from penstock.loop.native import native_core
from penstock.loop.servers import connection_count
from penstock.pressure import BoundedSemaphore, BoundedTaskGroup, CapacityLimiter, Semaphore
from penstock.pressure.admission.gate import Gate
from penstock.pressure.overload.loop import arrived_at

ROUNDS, ITERATIONS = 5, 300
# One reference lost in an iteration is 1.0; caches that fill meanwhile are less.
TOLERANCE = 0.05
SIZES = itertools.count()


class Borrowed(asyncio.BufferedProtocol):
    """Receives into one buffer."""

    def __init__(self) -> None:
        self.buffer = bytearray(1000)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer


class Keeping(asyncio.Protocol):
    """Keeps every other object that it receives, until the connection ends."""

    def __init__(self) -> None:
        self.kept: list[bytes] = []

    def data_received(self, data: bytes) -> None:
        self.kept += [data] if len(data) % 2 else []


class Failing(asyncio.Protocol):
    """Raises when it receives."""

    def data_received(self, data: bytes) -> None:
        raise ValueError


def turn(loop: Any) -> None:
    loop.call_soon(loop.stop)
    loop.run_forever()


def callbacks(loop: Any) -> None:
    for count in range(6):
        loop.call_soon(lambda *_: None, *range(count))
    loop.call_soon(callback=int).cancel()
    loop.call_soon_threadsafe(int)
    loop.call_soon_threadsafe(int).cancel()
    turn(loop)


def errors(loop: Any) -> None:
    loop.call_soon(int, "x")
    loop.call_later(0, int, "x")
    for call in (loop.call_soon, loop.call_later):
        try:
            call(unknown=1)
        except TypeError:
            pass
    turn(loop)
    turn(loop)


def timers(loop: Any) -> None:
    handles = [loop.call_later(delay_s, int) for delay_s in [-1, 0, 100, 200]]
    handles[2].cancel()
    handles[3].cancel()
    for handle in [loop.call_later(100 + at % 7, int) for at in range(250)]:
        handle.cancel()
    turn(loop)


def tasks(loop: Any) -> None:
    async def main() -> None:
        await asyncio.gather(*(asyncio.sleep(0) for _ in range(5)))

    loop.run_until_complete(main())


def telemetry(loop: Any) -> None:
    """Births, steps, ends, losses, and everything that reads them."""

    async def fail() -> None:
        raise ValueError

    async def lost() -> None:
        await loop.create_future()

    async def main() -> None:
        # no sleeps: the timers they leave, cancelled, go when the heap is next made anew
        forever = loop.create_future()
        tasks = [asyncio.create_task(asyncio.wait([forever])) for _ in range(5)]
        asyncio.create_task(lost())  # noqa: RUF006 (nobody holds it)
        await asyncio.sleep(0)
        snapshot = native_core(loop).snapshot_tasks()
        assert all(snapshot[at] for at in range(len(snapshot)))
        for task in tasks:
            task.cancel()
        await asyncio.gather(fail(), *tasks, return_exceptions=True)

    loop.run_until_complete(main())
    gc.collect()
    probe = native_core(loop).probe
    (
        probe.ledger.sweep(0),
        probe.ledger.site_counts(),
        probe.ledger.overdue(0, [1] * 50, 5),
        probe.ledger.waiting(0, 0, 5),
    )
    probe.set_level(0)
    probe.set_level(3)


def gates(loop: Any) -> None:
    """Entries of every kind, refused, cancelled while they wait and when they have a permit, expired."""

    async def visit(gate: Gate, **how: Any) -> None:
        async with gate.entry(**how) if how else gate:
            await asyncio.sleep(0)

    async def main() -> None:
        gate = Gate(2, max_wait_s=0.0001, max_queued=8)
        tasks = [asyncio.ensure_future(visit(gate)) for _ in range(6)]
        tasks += [asyncio.ensure_future(visit(gate, priority=at % 4, key=at % 3)) for at in range(12)]
        await asyncio.sleep(0)
        tasks[3].cancel()
        tasks[9].cancel()
        gate.resize(1)
        await asyncio.sleep(0.0002)
        await asyncio.gather(*tasks, return_exceptions=True)
        gate = Gate(1, max_wait_s=math.inf)
        coroutine = gate.enter()
        assert gate.try_enter()
        coroutine.send(None)
        gate.leave()
        coroutine.close()
        gate.close()

    loop.run_until_complete(main())


def permits(loop: Any) -> None:
    """Permits taken at once and waited for, cancelled before and after they are handed over, and driven by hand."""

    async def visit(permit: Any) -> None:
        async with permit:
            await asyncio.sleep(0)

    async def main() -> None:
        semaphore, limiter = BoundedSemaphore(2), CapacityLimiter(2)
        tasks = [asyncio.ensure_future(visit(permit)) for permit in (semaphore, limiter) for _ in range(8)]
        await asyncio.sleep(0)
        for at in (3, 4, 11, 12):
            tasks[at].cancel("enough")
        await asyncio.sleep(0)
        for at in (2, 5, 10, 13):
            tasks[at].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert not semaphore.locked()
        for release in (semaphore.release, limiter.release):
            try:
                release()
            except (ValueError, RuntimeError):
                pass
        for permit in (Semaphore(0), CapacityLimiter(0)):
            coroutine = visit(permit)
            coroutine.send(None)
            coroutine.close()
        turn = semaphore.__aenter__()
        await turn
        lost = Semaphore(0).acquire()
        lost.send(None)
        async with BoundedTaskGroup(1) as group:
            for _ in range(3):
                await group.spawn(asyncio.sleep, 0)

    loop.run_until_complete(main())
    gc.collect()


def watches(loop: Any) -> None:
    one, two = socket.socketpair()
    loop.add_reader(one, int)
    loop.add_writer(one, int)
    loop.add_writer(one, loop.remove_writer, one)
    two.send(b"x")
    turn(loop)
    turn(loop)
    loop.remove_reader(one)
    one.close()
    two.close()


def exchange(kind: type[Any], write: Callable[[Any], None]) -> Callable[[Any], None]:
    def connection(loop: Any) -> None:
        async def main() -> None:
            one, two = socket.socketpair()
            one.setblocking(False)
            two.setblocking(False)
            sender, _ = await loop.create_connection(asyncio.Protocol, sock=one)
            receiver, _ = await loop.create_connection(kind, sock=two)
            write(sender)
            await asyncio.sleep(0.0001)
            sender.close()
            await asyncio.sleep(0.0001)
            # whatever it could not send
            sender.abort()
            receiver.abort()
            await asyncio.sleep(0)

        loop.run_until_complete(main())

    return connection


async def ended(server: Any, *clients: Any) -> None:
    """The server and its clients, sockets or transports, with nothing left of either."""
    for client in clients:
        client.close() if isinstance(client, socket.socket) else client.abort()
    server.close()
    while connection_count(server):
        await asyncio.sleep(0)
    await asyncio.sleep(0)


def watch(loop: Any, high_ns: int, defer_ns: int = 0) -> None:
    from penstock._core.overload.lag import Lag

    native_core(loop).watch_lag(Lag(high_ns=high_ns, low_ns=1, for_ns=10**12, defer_ns=defer_ns), arrived_at)


async def behind(loop: Any, defer_ns: int = 0) -> None:
    """From now on the loop is behind whenever anything is ready."""
    watch(loop, 1, defer_ns)
    for _ in range(3):
        await asyncio.sleep(0)


def resets(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def connects(server: Any, count: int) -> list[socket.socket]:
    return [socket.create_connection(server.sockets[0].getsockname()) for _ in range(count)]


def streams(loop: Any) -> None:
    """A StreamReader that is fed small and large reads, that pauses, and whose buffer cannot grow."""

    async def main() -> None:
        one, two = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=one, limit=1000)
        _, sender = await asyncio.open_connection(sock=two)
        sender.write(b"a" * 50_000)
        await reader.readexactly(50_000)
        sender.write(b"line\n" * 2)
        await reader.readline()
        with memoryview(reader._buffer):  # type: ignore[attr-defined]
            sender.write(b"more")
            while not writer.is_closing():
                await asyncio.sleep(0)
        sender.close()
        await asyncio.sleep(0.0001)

    loop.run_until_complete(main())


def accepts(loop: Any) -> None:
    async def main() -> None:
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        transport, _ = await loop.create_connection(asyncio.Protocol, *server.sockets[0].getsockname())
        await asyncio.sleep(0.0001)
        await ended(server, transport)

    loop.run_until_complete(main())


def held_reads(loop: Any) -> None:
    """Held, let go, and gone while they are held."""

    async def main() -> None:
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        clients = connects(server, 3)
        await asyncio.sleep(0.001)
        await behind(loop)
        for client in clients:
            client.sendall(b"x")
        while len(native_core(loop).deferred_reads) < 3:
            await asyncio.sleep(0)
        resets(clients[0])
        while len(native_core(loop).deferred_reads) > 2:
            await asyncio.sleep(0)
        await asyncio.sleep(0.0001)
        native_core(loop).watch_lag(None)
        await ended(server, *clients)

    loop.run_until_complete(main())


class Telling(asyncio.Protocol):
    overload_reply = b"later"


def turned_away(loop: Any) -> None:
    """Told unread: held already, held just now, parked already, and accepted just now."""

    async def main() -> None:
        server = await loop.create_server(Telling, "127.0.0.1", 0)
        # what a server's clients are told is asked of protocols that are made while somebody looks
        watch(loop, 10**12)
        clients = connects(server, 2)
        await asyncio.sleep(0.001)
        before = native_core(loop).shed_unread_count
        await behind(loop, defer_ns=10**12)
        clients += connects(server, 1)
        for client in clients[1:]:
            client.sendall(b"x")
        while len(native_core(loop).deferred_reads) + len(native_core(loop).deferred_accepts) < 2:
            await asyncio.sleep(0)
        await behind(loop, defer_ns=1)
        while native_core(loop).shed_unread_count < before + 2:
            await asyncio.sleep(0)
        native_core(loop).watch_lag(None)
        await ended(server, *clients)

    loop.run_until_complete(main())


def parked(loop: Any) -> None:
    """Parked, let in, gone while they are parked, and closed with their server."""

    async def main() -> None:
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        server.max_connections = 100
        await behind(loop)
        clients = connects(server, 4)
        for client in clients:
            client.sendall(b"x")
        while len(native_core(loop).deferred_accepts) < 4:
            await asyncio.sleep(0)
        resets(clients[0])
        while len(native_core(loop).deferred_accepts) > 3:
            await asyncio.sleep(0)
        # with nothing ready one is let in, and perhaps more
        await asyncio.sleep(0.0001)
        server.close()
        native_core(loop).watch_lag(None)
        await ended(server, *clients)

    loop.run_until_complete(main())


def pauses(loop: Any) -> None:
    async def main() -> None:
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        server.max_connections = 1
        server.pause_accepting()
        server.resume_accepting()
        clients = connects(server, 1)
        await asyncio.sleep(0.0001)
        await ended(server, *clients)

    loop.run_until_complete(main())


def bounded_tasks(loop: Any) -> None:
    def refuse(coro: Any) -> None:
        coro.close()
        raise LookupError

    async def main() -> None:
        native_core(loop).limit_tasks(1, refuse)
        await asyncio.sleep(0)
        try:
            loop.create_task(asyncio.sleep(0))
        except LookupError:
            pass
        native_core(loop).watch_room(int)
        await asyncio.sleep(0)
        native_core(loop).watch_room(None)
        native_core(loop).limit_tasks(0)

    loop.run_until_complete(main())


def bounds(loop: Any) -> None:
    """Connections that the budget holds and lets go, that are idle, told of and cut, and that go away held."""
    native_core(loop).limit_connections(shared_budget(), TimeoutBounds(slow_reader_ns=1, receive_ns=1, idle_ns=10**12))
    shared_budget().set_marks(100_000)

    async def main() -> None:
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        late, _ = await loop.create_connection(asyncio.Protocol, *server.sockets[0].getsockname())
        one, two = socket.socketpair()
        sender, _ = await loop.create_connection(asyncio.Protocol, sock=one)
        sender.write(b"a" * 500_000)
        assert sender._budget_pauses
        sender.set_receive_deadline(1)
        sender.set_receive_deadline(None)
        sender.expect_request()
        sender.set_receiving(True)
        sender.set_receiving(False)
        two.recv(500_000)
        await asyncio.sleep(0.0001)
        # The wheel comes round early.
        sender.set_receive_deadline(1e-9)
        native_core(loop).on_disconnect = lambda *_: ConnectionAbortedError("late")
        for transport in (sender, late):
            transport._disconnect_late()
        sender.abort()
        await ended(server, late, two)

    loop.run_until_complete(main())
    native_core(loop).on_disconnect = None
    native_core(loop).limit_connections(None, None)
    shared_budget().set_marks(None)


def bad_lines(sender: Any) -> None:
    try:
        sender.writelines([b"a", 1])
    except TypeError:
        pass


async def call_sockets(loop: Any) -> None:
    one, other = socket.socketpair()
    one.setblocking(False)
    other.setblocking(False)
    calls = [loop.sock_recv(one, 100), loop.sock_recv_into(other, bytearray(10)), loop.sock_recv(one, 10)]
    tasks = [asyncio.ensure_future(call) for call in calls]
    await asyncio.sleep(0)
    for sender in one, other:
        await loop.sock_sendall(sender, b"abc")
    await asyncio.wait(tasks[1:])
    tasks[0].cancel()
    sending = asyncio.ensure_future(loop.sock_sendall(one, bytearray(2_000_000)))
    await asyncio.sleep(0)
    await loop.sock_recv(other, 100_000)
    await asyncio.sleep(0)
    sending.cancel()
    await asyncio.wait([tasks[0], sending])
    one.close()
    other.close()


async def connect_sockets(loop: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        listener.setblocking(False)
        client.setblocking(False)
        accepting = asyncio.ensure_future(loop.sock_accept(listener))
        await asyncio.sleep(0)
        await loop.sock_connect(client, listener.getsockname())
        (await accepting)[0].close()
        pending = loop.sock_accept(listener)
        pending.send(None)
        pending.close()


CASES: dict[str, Callable[[Any], None]] = {
    "call_soon": callbacks,
    "errors in callbacks": errors,
    "timers": timers,
    "tasks": tasks,
    "telemetry": telemetry,
    "gates": gates,
    "semaphores and limiters": permits,
    "watches": watches,
    "streams": streams,
    "sock_*": lambda loop: loop.run_until_complete(call_sockets(loop)),
    "sock_connect, sock_accept": lambda loop: loop.run_until_complete(connect_sockets(loop)),
    "accept": accepts,
    "held reads": held_reads,
    "parked connections": parked,
    "turned away": turned_away,
    "servers that pause": pauses,
    "bounded tasks": bounded_tasks,
    "bounds": bounds,
    "write": exchange(asyncio.Protocol, lambda sender: [sender.write(b"abc" * at) for at in range(5)]),
    "write, much": exchange(asyncio.Protocol, lambda sender: sender.write(bytearray(1_000_000))),
    "writelines": exchange(
        asyncio.Protocol, lambda sender: sender.writelines([b"a" * 100, bytearray(5), memoryview(b"b")])
    ),
    "writelines, wrong": exchange(asyncio.Protocol, bad_lines),
    "BufferedProtocol": exchange(Borrowed, lambda sender: sender.write(b"a" * 5000)),
    "data kept and dropped": exchange(Keeping, lambda sender: sender.write(b"a" * (600 + next(SIZES) % 5000))),
    "errors in protocols": exchange(Failing, lambda sender: sender.write(b"a")),
    "new loop": lambda _: EventLoop().close(),
}


def growth(case: Callable[[Any], None]) -> float:
    """References gained per iteration; the least of the rounds, since caches only grow."""
    loop = EventLoop()
    loop.set_exception_handler(lambda *_: None)
    native_core(loop).probe.set_level(3)
    grown: list[float] = []
    for _ in range(ROUNDS):
        gc.collect()
        before = sys.gettotalrefcount()  # type: ignore[attr-defined]
        for _ in range(ITERATIONS):
            case(loop)
        gc.collect()
        grown.append((sys.gettotalrefcount() - before) / ITERATIONS)  # type: ignore[attr-defined]
    loop.close()
    return min(grown[1:], key=abs)


def main() -> int:
    if not hasattr(sys, "gettotalrefcount") or not NATIVE:
        print("nothing measured: this takes a debug build of CPython, with the extension built for it")
        return 0
    found = {name: growth(case) for name, case in CASES.items()}
    for name, value in found.items():
        print(f"{name:24} {value:+.3f} references per iteration")
    return int(any(abs(value) > TOLERANCE for value in found.values()))


if __name__ == "__main__":
    sys.exit(main())
