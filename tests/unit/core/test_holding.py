"""Reads that are held while the loop is behind, over real sockets. A loop with something always ready is behind."""

import asyncio
import contextlib
import contextvars
import functools
import gc
import socket
import struct
import weakref

import pytest

from penstock._core.overload.lag import Lag
from penstock.loop import EventLoop
from penstock.loop.native import native_core
from penstock.runtime.drain import abort_connections
from tests.loop.wire import BufferedRecorder, Recorder
from tests.support import waiting
from tests.support.waiting import turns

HOUR_NS = 3600 * 10**9
arrived_at = contextvars.ContextVar("arrived_at")


class Noting(Recorder):
    """Writes down what it can learn of when its data came, and the order in which such protocols read."""

    def __init__(self, order=None):
        super().__init__()
        self.arrivals = []
        self.order = order if order is not None else []

    def data_received(self, data):
        self.order.append(self)
        self.arrivals.append((arrived_at.get(None), self.transport.get_extra_info("arrived_at")))
        super().data_received(data)


# Something is always ready meanwhile: sleep(0) is.
until = functools.partial(waiting.until, every_s=0.0)


def watch(loop, **more):
    """From now on the loop is behind whenever anything has been ready for a nanosecond."""
    lag = Lag(high_ns=1, low_ns=1, for_ns=HOUR_NS)
    native_core(loop).watch_lag(lag, arrived_at, **more)
    return lag


async def accepted(loop, *protocols):
    """A server, and a raw client for each protocol."""
    server = await loop.create_server(iter(protocols).__next__, "127.0.0.1", 0)
    clients = []
    for protocol in protocols:
        clients.append(socket.create_connection(server.sockets[0].getsockname()))
        inner = getattr(protocol, "inner", protocol)
        await inner.until_event("made")
    return server, clients


async def send_to_be_held(loop, *clients):
    """Return the clients, whose requests are deferred one after the other."""
    for client in clients:
        before = native_core(loop).deferred_reads.total
        client.sendall(b"data")
        await until(lambda before=before: native_core(loop).deferred_reads.total > before)


async def begin(loop, *protocols, **more):
    """The same with a loop that is behind from then on."""
    server, clients = await accepted(loop, *protocols)
    watch(loop, **more)
    await turns(3)
    return server, clients


@contextlib.asynccontextmanager
async def behind(loop, *protocols, **more):
    """The raw clients of a server whose loop is behind; what they send is held."""
    server, clients = await begin(loop, *protocols, **more)
    try:
        yield clients
    finally:
        await end(server, clients)


@contextlib.asynccontextmanager
async def held(loop, *protocols, **more):
    """The same; what each client has sent is held already."""
    async with behind(loop, *protocols, **more) as clients:
        await send_to_be_held(loop, *clients)
        yield clients


async def end(server, clients=()):
    """Leaves nothing open on either side."""
    abort_connections(server.get_loop(), server)
    server.close()
    for client in clients:
        client.close()
    await turns(5)


@pytest.mark.parametrize("make", [Recorder, BufferedRecorder])
async def test_a_held_read_waits_while_anything_is_late_and_not_longer(loop, make):
    protocol = make()
    async with held(loop, protocol):
        await turns(200)
        assert (bytes(protocol.data), len(native_core(loop).deferred_reads)) == (b"", 1)
        await getattr(protocol, "inner", protocol).until(lambda: bytes(protocol.data) == b"data")
        assert (
            len(native_core(loop).deferred_reads),
            native_core(loop).deferred_reads.total,
            native_core(loop).deferred_reads.most,
        ) == (0, 1, 1)


async def test_a_programs_own_connections_are_read_on(loop):
    server, clients = await accepted(loop, Recorder())
    ours, theirs = socket.socketpair()
    own = Recorder()
    await loop.create_connection(lambda: own, sock=ours)
    watch(loop)
    await turns(3)
    theirs.sendall(b"answer")
    await until(lambda: own.data == b"answer")
    assert native_core(loop).deferred_reads.total == 0
    own.transport.abort()
    theirs.close()
    await end(server, clients)


async def test_the_newest_is_read_first(loop):
    order = []
    protocols = [Noting(order) for _ in range(5)]
    async with held(loop, *protocols):
        for protocol in protocols:
            await protocol.until_bytes(4)
        assert order == protocols[::-1]


async def test_a_late_turn_accepts_nothing(loop):
    protocol = Recorder()
    server = await loop.create_server(lambda: protocol, "127.0.0.1", 0)
    watch(loop)
    await turns(3)
    with socket.create_connection(server.sockets[0].getsockname()):
        await turns(300)
        assert protocol.events == []
        await protocol.until_event("made")
    await end(server)


def reset(client):
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


async def test_a_client_that_resets_is_closed_unread(loop):
    protocol = Recorder()
    async with held(loop, protocol) as clients:
        reset(clients[0])
        await until(lambda: "lost" in protocol.events)
        assert (protocol.events, type(protocol.error)) == (["made", "lost"], ConnectionResetError)
        assert (len(native_core(loop).deferred_reads), native_core(loop).deferred_reads.abandoned) == (0, 1)


async def test_a_client_that_has_long_waited_and_leaves_is_closed_unread(loop):
    protocol = Recorder()
    async with held(loop, protocol) as clients:
        since_s = loop.time()
        await until(lambda: loop.time() > since_s + 0.02)
        clients[0].close()
        await until(lambda: "lost" in protocol.events)
        assert (protocol.events, protocol.error, native_core(loop).deferred_reads.abandoned) == (
            ["made", "lost"],
            None,
            1,
        )


async def test_a_client_that_shuts_down_behind_its_request_is_read(loop):
    protocol = Recorder()
    async with behind(loop, protocol) as clients:
        clients[0].sendall(b"data")
        clients[0].shutdown(socket.SHUT_WR)
        await until(lambda: len(native_core(loop).deferred_reads))
        await protocol.until_event("lost")
        assert (protocol.data, protocol.events) == (b"data", ["made", "data", "eof", "lost"])


async def test_who_leaves_is_read_all_the_same_if_told_so(loop):
    protocol = Recorder()
    async with held(loop, protocol, closes_abandoned=False) as clients:
        since_s = loop.time()
        await until(lambda: loop.time() > since_s + 0.02)
        clients[0].shutdown(socket.SHUT_WR)
        await protocol.until_event("lost")
        assert (protocol.data, native_core(loop).deferred_reads.abandoned) == (b"data", 0)


async def test_the_end_of_an_idle_connection_is_no_work_and_is_not_held(loop):
    protocol = Recorder()
    async with behind(loop, protocol) as clients:
        clients[0].close()
        await until(lambda: "lost" in protocol.events)
        assert native_core(loop).deferred_reads.total == 0


async def test_what_is_long_held_and_shut_down_is_dropped_when_asked(loop):
    stays, leaves = Recorder(), Recorder()
    async with behind(loop, stays, leaves) as clients:
        clients[0].sendall(b"data")
        clients[1].sendall(b"data")
        clients[1].shutdown(socket.SHUT_WR)
        await until(lambda: len(native_core(loop).deferred_reads) == 2)
        assert native_core(loop).close_abandoned(HOUR_NS) == 0
        assert native_core(loop).close_abandoned(0) == 1
        await until(lambda: "lost" in leaves.events)
        assert (leaves.data, len(native_core(loop).deferred_reads)) == (b"", 1)
        await stays.until_bytes(4)


async def test_a_read_that_was_held_tells_when_its_data_came_and_the_next_does_not(loop):
    protocol = Noting()
    before_s = loop.time()
    async with held(loop, protocol) as clients:
        after_s = loop.time()
        await asyncio.sleep(0.001)
        await protocol.until_bytes(4)
        native_core(loop).watch_lag(None)
        clients[0].sendall(b"more")
        await protocol.until_bytes(8)
        late, in_time = protocol.arrivals
        assert before_s <= late[0] == late[1] <= after_s
        assert in_time == (None, None)


async def test_tasks_made_while_a_held_read_is_delivered_know_it_for_good(loop):
    found = []

    async def handle():
        await asyncio.sleep(0)
        found.append(arrived_at.get(None))

    class Serving(Recorder):
        def data_received(self, data):
            self.task = asyncio.ensure_future(handle())
            super().data_received(data)

    protocol = Serving()
    async with held(loop, protocol):
        await protocol.until_bytes(4)
        await protocol.task
        assert found[0] is not None
        assert arrived_at.get(None) is None


async def test_a_pause_outlasts_being_held(loop):
    protocol = Recorder()
    async with held(loop, protocol):
        protocol.transport.pause_reading()
        await asyncio.sleep(0.001)
        assert (len(native_core(loop).deferred_reads), protocol.data) == (0, b"")
        protocol.transport.resume_reading()
        await protocol.until_bytes(4)


async def test_resuming_does_not_overtake_the_hold(loop):
    protocol = Recorder()
    async with held(loop, protocol):
        protocol.transport.pause_reading()
        protocol.transport.resume_reading()
        await turns(100)
        assert protocol.data == b""
        await protocol.until_bytes(4)


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_a_transport_that_ends_while_held_leaves_the_list(loop, how):
    first, second = Recorder(), Recorder()
    async with held(loop, first, second):
        getattr(first.transport, how)()
        assert [source for source, _ in native_core(loop).deferred_reads.snapshot()] == [second.transport]
        await until(lambda: "lost" in first.events)
        await second.until_bytes(4)
        assert first.data == b""


async def test_what_can_be_written_is_written_while_reads_are_held(loop):
    protocol = Recorder()
    async with held(loop, protocol) as clients:
        protocol.transport.write(b"x" * 10_000_000)
        clients[0].setblocking(False)
        received = 0
        while received < 10_000_000:
            try:
                received += len(clients[0].recv(1_000_000))
            except BlockingIOError:
                await asyncio.sleep(0)
        assert (protocol.data, len(native_core(loop).deferred_reads)) == (b"", 1)
        await protocol.until_bytes(4)


async def test_watching_no_more_lets_everything_go(loop):
    protocols = [Recorder(), Recorder()]
    async with held(loop, *protocols):
        native_core(loop).watch_lag(None)
        await until(lambda: all(protocol.data for protocol in protocols))


def test_a_loop_closed_with_held_reads_gives_everything_back():
    loop = EventLoop()
    protocol = Recorder()

    async def main():
        server, clients = await begin(loop, protocol)
        await send_to_be_held(loop, *clients)
        server.close()
        return clients

    clients = loop.run_until_complete(main())
    weak = weakref.ref(protocol.transport)
    assert len(native_core(loop).deferred_reads) == 1
    loop.close()
    assert len(native_core(loop).deferred_reads) == 0
    with pytest.warns(ResourceWarning):
        del protocol.transport
        gc.collect()
    assert weak() is None
    clients[0].close()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_loop_dropped_with_held_reads_is_collected():
    def leave():
        loop = EventLoop()

        async def main():
            server, clients = await begin(loop, Recorder())
            await send_to_be_held(loop, *clients)
            server.close()
            clients[0].close()

        loop.run_until_complete(main())
        return weakref.ref(loop)

    weak = leave()
    gc.collect()
    assert weak() is None


def test_tasks_beyond_the_bound_are_told_before_they_are_made(loop, run):
    told = []

    def refuse(coro):
        coro.close()
        told.append(coro)
        raise LookupError

    async def main():
        # counted from here on: tasks that are there already, as they next run
        native_core(loop).limit_tasks(1000, refuse)
        await asyncio.sleep(0)
        native_core(loop).limit_tasks(native_core(loop).probe.ledger.live + 1, refuse)
        task = asyncio.ensure_future(asyncio.sleep(0))
        with pytest.raises(LookupError):
            loop.create_task(asyncio.sleep(0))
        await task
        await asyncio.ensure_future(asyncio.sleep(0))
        native_core(loop).limit_tasks(0)

    run(main())
    assert len(told) == 1
