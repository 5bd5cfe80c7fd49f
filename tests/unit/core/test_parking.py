"""Connections that are parked while the loop is behind, over real sockets. A loop with something always ready is."""

import asyncio
import gc
import os
import socket
import time
import weakref

import pytest

from penstock._core.net import deferred_accepts as parked
from penstock._core.overload.lag import Lag
from penstock.loop import EventLoop
from penstock.loop.native import native_core
from penstock.loop.servers import connection_count
from penstock.runtime.drain import abort_connections
from tests.loop.wire import Recorder
from tests.unit.core.test_holding import HOUR_NS, Noting, end, reset, send_to_be_held, until, watch

# A client that leaves earlier may still wait for an answer to what it sent.
LATER_S = 0.025


class Made:
    """A protocol factory that keeps what it makes; in `order` each stands as it is made and whenever it reads."""

    def __init__(self):
        self.protocols, self.order = [], []

    def __call__(self):
        self.protocols.append(Noting(self.order))
        self.order.append(self.protocols[-1])
        return self.protocols[-1]

    async def until_made(self, count):
        while len(self.protocols) < count:
            await asyncio.sleep(0.0001)


@pytest.fixture(autouse=True)
def no_descriptor_is_left(request):
    """`loop` is made after this, and its descriptors are its own: those of the first loop of the process stay."""
    EventLoop().close()
    before = descriptors()
    yield
    assert descriptors() - before <= 0


def descriptors():
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


async def serving(loop, make, **more):
    """A server whose loop is behind from now on."""
    server = await loop.create_server(make, "127.0.0.1", 0)
    watch(loop, **more)
    for _ in range(3):
        await asyncio.sleep(0)
    return server


def shut(client):
    client.shutdown(socket.SHUT_WR)


async def park(loop, server, count=1, data=b"data", then=None):
    """So many clients, parked one after the other; of each, `then(client)` comes right behind its data."""
    clients = []
    for _ in range(count):
        before = native_core(loop).deferred_accepts.total
        clients.append(socket.create_connection(server.sockets[0].getsockname()))
        clients[-1].sendall(data)
        if then is not None:
            then(clients[-1])
        await until(lambda before=before: native_core(loop).deferred_accepts.total > before)
    return clients


async def begin(loop, make, count=1, **more):
    server = await serving(loop, make, **more)
    return server, await park(loop, server, count)


async def later(loop):
    """So long that a client that leaves now has been seen to wait before; with something always ready."""
    since_s = loop.time()
    await until(lambda: loop.time() > since_s + LATER_S)
    # All are looked at, now: after a look that was slow, the loop's own next one may be a second away.
    assert native_core(loop).close_abandoned(HOUR_NS) == 0


async def test_a_connection_that_is_parked_has_no_protocol_until_the_loop_catches_up(loop):
    make = Made()
    server, clients = await begin(loop, make)
    for _ in range(200):
        await asyncio.sleep(0)
    assert (make.protocols, len(native_core(loop).deferred_accepts), connection_count(server)) == ([], 1, 1)
    await make.until_made(1)
    await make.protocols[0].until_bytes(4)
    assert (
        len(native_core(loop).deferred_accepts),
        native_core(loop).deferred_accepts.most,
        native_core(loop).deferred_accepts.total,
        native_core(loop).deferred_accepts.abandoned,
    ) == (0, 1, 1, 0)
    assert connection_count(server) == 1
    await end(server, clients)


async def test_a_calm_loop_parks_nothing(loop):
    make = Made()
    server = await loop.create_server(make, "127.0.0.1", 0)
    native_core(loop).watch_lag(Lag(high_ns=HOUR_NS, low_ns=HOUR_NS, for_ns=HOUR_NS))
    client = socket.create_connection(server.sockets[0].getsockname())
    await make.until_made(1)
    assert native_core(loop).deferred_accepts.total == 0
    await end(server, [client])


async def test_the_newest_is_let_in_first(loop):
    make = Made()
    server, clients = await begin(loop, make, 5)
    accepted = [since_ns for _, since_ns in native_core(loop).deferred_accepts.snapshot()]
    await make.until_made(5)
    for protocol in make.protocols:
        await protocol.until_bytes(4)
    read = [protocol for at, protocol in enumerate(make.order) if protocol in make.order[:at]]
    assert read == make.protocols
    arrivals = [protocol.arrivals[0] for protocol in make.protocols]
    assert [came_s for came_s, _ in arrivals] == [since_ns / 1e9 for since_ns in accepted]
    assert all(in_tasks == in_extra for in_tasks, in_extra in arrivals)
    await end(server, clients)


async def test_held_reads_and_parked_connections_are_one_line(loop):
    make = Made()
    server = await loop.create_server(make, "127.0.0.1", 0)
    clients = [socket.create_connection(server.sockets[0].getsockname()) for _ in range(2)]
    await make.until_made(2)
    watch(loop)
    for _ in range(3):
        await asyncio.sleep(0)
    await send_to_be_held(loop, clients[0])
    clients += await park(loop, server)
    await send_to_be_held(loop, clients[1])
    clients += await park(loop, server)
    await until(lambda: len(native_core(loop).deferred_reads) + len(native_core(loop).deferred_accepts) == 4)
    make.order.clear()
    await make.until_made(4)
    for protocol in make.protocols:
        await protocol.until_bytes(4)
    # made, or read: whatever was first of each
    first, second, newest, oldest = make.protocols
    assert list(dict.fromkeys(make.order)) == [newest, second, oldest, first]
    await end(server, clients)


async def test_one_that_has_sent_nothing_is_let_in_all_the_same_and_has_no_arrival(loop):
    make = Made()
    server = await serving(loop, make)
    clients = await park(loop, server, data=b"")
    await make.until_made(1)
    await make.protocols[0].until_event("made")
    native_core(loop).watch_lag(None)
    clients[0].sendall(b"data")
    await make.protocols[0].until_bytes(4)
    assert make.protocols[0].arrivals == [(None, None)]
    await end(server, clients)


@pytest.mark.parametrize("leave", [reset, socket.socket.close])
async def test_a_client_that_leaves_costs_no_protocol(loop, leave):
    make = Made()
    server, clients = await begin(loop, make, 3)
    await later(loop)
    leave(clients[1])
    await until(lambda: len(native_core(loop).deferred_accepts) == 2)
    assert native_core(loop).deferred_accepts.abandoned == 1
    await make.until_made(2)
    await end(server, clients)
    assert len(make.protocols) == 2


async def test_a_client_is_looked_at_once_more_before_it_is_let_in(loop):
    make = Made()
    server, clients = await begin(loop, make, 2)
    reset(clients[1])
    await make.until_made(1)
    await make.protocols[0].until_bytes(4)
    assert (
        native_core(loop).deferred_accepts.abandoned,
        len(native_core(loop).deferred_accepts),
        len(make.protocols),
    ) == (1, 0, 1)
    await end(server, clients)


async def test_a_client_that_shuts_down_behind_its_request_is_read(loop):
    make = Made()
    server = await serving(loop, make)
    clients = await park(loop, server, then=shut)
    await later(loop)
    await later(loop)
    assert len(native_core(loop).deferred_accepts) == 1
    await make.until_made(1)
    await make.protocols[0].until_event("lost")
    assert make.protocols[0].data == b"data"
    await end(server, clients)


async def test_what_is_long_parked_and_shut_down_is_dropped_when_asked(loop):
    make = Made()
    server = await serving(loop, make)
    clients = await park(loop, server, then=shut) + await park(loop, server)
    await later(loop)
    assert native_core(loop).close_abandoned(HOUR_NS) == 0
    assert native_core(loop).close_abandoned(0) == 1
    assert (native_core(loop).deferred_accepts.abandoned, len(native_core(loop).deferred_accepts)) == (1, 1)
    await make.until_made(1)
    await end(server, clients)


async def test_who_shuts_down_is_read_all_the_same_if_told_so_and_who_resets_is_not(loop):
    make = Made()
    server, clients = await begin(loop, make, 2, closes_abandoned=False)
    await later(loop)
    clients[0].shutdown(socket.SHUT_WR)
    reset(clients[1])
    await until(lambda: len(native_core(loop).deferred_accepts) == 1)
    await later(loop)
    assert native_core(loop).close_abandoned(0) == 0
    await make.until_made(1)
    await make.protocols[0].until_event("lost")
    assert (make.protocols[0].data, native_core(loop).deferred_accepts.abandoned, len(make.protocols)) == (
        b"data",
        1,
        1,
    )
    await end(server, clients)


async def test_many_come_and_go_and_those_that_stay_are_served_in_order(loop):
    make = Made()
    server, clients = await begin(loop, make, 150)
    await later(loop)
    leaving = clients[::3]
    for client in leaving:
        client.close()
    await until(lambda: len(native_core(loop).deferred_accepts) == 100)
    since = [since_ns for _, since_ns in native_core(loop).deferred_accepts.snapshot()]
    assert since == sorted(since, reverse=True)
    await make.until_made(100)
    assert (native_core(loop).deferred_accepts.abandoned, native_core(loop).deferred_accepts.most) == (50, 150)
    for protocol in make.protocols:
        await protocol.until_bytes(4)
    await end(server, clients)


async def test_what_finds_no_room_stays_in_the_backlog_and_is_not_lost(loop):
    make = Made()
    server = await serving(loop, make)
    native_core(loop).deferred_accepts.capacity = 2
    clients = await park(loop, server, 2)
    clients.append(socket.create_connection(server.sockets[0].getsockname()))
    clients[2].sendall(b"data")
    for _ in range(300):
        await asyncio.sleep(0)
    assert (native_core(loop).deferred_accepts.total, make.protocols) == (2, [])
    await make.until_made(3)
    for protocol in make.protocols:
        await protocol.until_bytes(4)
    await end(server, clients)


async def test_parked_connections_count_as_connections(loop):
    make = Made()
    server = await serving(loop, make)
    server.max_connections = 2
    clients = await park(loop, server, 2)
    assert not server.is_accepting()
    clients.append(socket.create_connection(server.sockets[0].getsockname()))
    await later(loop)
    assert (len(native_core(loop).deferred_accepts), native_core(loop).deferred_accepts.total) == (2, 2)
    clients[0].close()
    await until(lambda: native_core(loop).deferred_accepts.total == 3)
    assert (
        native_core(loop).deferred_accepts.abandoned,
        len(native_core(loop).deferred_accepts),
        server.is_accepting(),
    ) == (1, 2, False)
    await make.until_made(2)
    assert connection_count(server) == 2
    assert not server.is_accepting()
    await end(server, clients)


async def test_one_whose_protocol_cannot_be_made_gives_its_place_back(loop):
    def fail():
        raise LookupError

    server = await serving(loop, fail)
    server.max_connections = 1
    clients = await park(loop, server)
    assert not server.is_accepting()
    while not server.is_accepting():
        await asyncio.sleep(0.0001)
    with pytest.raises(ConnectionResetError):
        clients[0].recv(1)
    await end(server, clients)


async def test_a_paused_server_lets_in_what_it_has_accepted(loop):
    make = Made()
    server, clients = await begin(loop, make)
    server.pause_accepting()
    await make.until_made(1)
    await make.protocols[0].until_bytes(4)
    await end(server, clients)


async def test_watching_no_more_lets_everyone_in(loop):
    make = Made()
    server, clients = await begin(loop, make, 3)
    native_core(loop).watch_lag(None)
    assert len(make.protocols) == 3
    await until(lambda: all(protocol.data for protocol in make.protocols))
    await end(server, clients)


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_a_server_that_ends_closes_what_is_parked_for_it_alone(loop, how):
    make, other = Made(), Made()
    server = await serving(loop, make)
    second = await loop.create_server(other, "127.0.0.1", 0)
    clients = await park(loop, server, 2) + await park(loop, second) + await park(loop, server)
    if how == "close":
        server.close()
    else:
        abort_connections(loop, server)
    assert (len(native_core(loop).deferred_accepts), connection_count(server), connection_count(second)) == (1, 0, 1)
    for client in (clients[0], clients[1], clients[3]):
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    await other.until_made(1)
    await other.protocols[0].until_bytes(4)
    assert make.protocols == []
    await end(second, clients)
    server.close()


async def test_a_unix_server_parks_too(loop, tmp_path):
    path = str(tmp_path / "socket")

    make = Made()
    server = await loop.create_unix_server(make, path)
    watch(loop)
    for _ in range(3):
        await asyncio.sleep(0)
    clients = [socket.socket(socket.AF_UNIX) for _ in range(2)]
    for client in clients:
        client.connect(path)
        client.sendall(b"data")
    await until(lambda: len(native_core(loop).deferred_accepts) == 2)
    await later(loop)
    clients[0].close()
    await until(lambda: len(native_core(loop).deferred_accepts) == 1)
    await make.until_made(1)
    await make.protocols[0].until_bytes(4)
    assert len(make.protocols) == 1
    await end(server, clients)


async def test_the_loop_is_behind_for_as_long_as_anything_is_parked(loop):
    make = Made()
    server = await loop.create_server(make, "127.0.0.1", 0)
    lag = watch(loop)
    for _ in range(3):
        await asyncio.sleep(0)
    clients = await park(loop, server, 3)
    assert lag.is_deferring
    await make.until_made(3)
    await end(server, clients)


async def test_new_connections_alone_do_not_keep_a_loop_behind(loop):
    """Each is parked until the next turn, as long as reads are held: that is no sign of being late."""

    make = Made()
    server = await loop.create_server(make, "127.0.0.1", 0)
    lag = Lag(high_ns=50_000_000, low_ns=50_000_000, for_ns=100_000_000)
    native_core(loop).watch_lag(lag)
    await asyncio.sleep(0)
    time.sleep(0.06)
    await until(lambda: lag.is_deferring)
    clients = []
    while lag.is_deferring:
        assert len(clients) < 1000
        clients.append(socket.create_connection(server.sockets[0].getsockname()))
        await asyncio.sleep(0.001)
    assert native_core(loop).deferred_accepts.total > 1
    await make.until_made(len(clients))
    await end(server, clients)


def leave_parked(loop, make):
    async def main():
        server, clients = await begin(loop, make, 3)
        return server, clients

    return loop.run_until_complete(main())


def test_a_loop_closed_with_parked_connections_gives_everything_back():
    loop, make = EventLoop(), Made()
    server, clients = leave_parked(loop, make)
    assert len(native_core(loop).deferred_accepts) == 3
    loop.close()
    assert (len(native_core(loop).deferred_accepts), make.protocols) == (0, [])
    for client in clients:
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        client.close()
    server.close()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_loop_dropped_with_parked_connections_is_collected():
    def leave():
        loop = EventLoop()
        _, clients = leave_parked(loop, Recorder)
        for client in clients:
            client.close()
        return weakref.ref(loop)

    weak = leave()
    gc.collect()
    assert weak() is None


def test_no_more_are_parked_than_leave_half_of_the_descriptors():
    loop = EventLoop()
    assert 0 < native_core(loop).deferred_accepts.capacity <= parked.MOST_AT_ONCE
    loop.close()
