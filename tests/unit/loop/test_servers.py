"""Servers that can be paused and are full at a number of connections: on the native loop and the pure one, with TLS."""

import asyncio
import contextvars
import socket

import pytest

from penstock.config import Config, LoopConfig, PressureConfig
from penstock.errors import ConfigError
from penstock.loop.servers import FewAccepts, connection_count
from penstock.runtime.build import build_loop
from penstock.runtime.drain import stop_accepting
from tests.loop.wire import Recorder
from tests.support.loops import POLLERS, TIMEOUT_S


@pytest.fixture(params=POLLERS)
def loop(request):
    loop = build_loop(Config(loop=LoopConfig(poller=request.param)))
    yield loop
    loop.close()


@pytest.fixture
def run(loop):
    return lambda main: loop.run_until_complete(asyncio.wait_for(main, TIMEOUT_S))


class Arrivals:
    """A protocol factory that keeps its protocols, and can be waited for."""

    def __init__(self):
        self.made = []
        self._changed = asyncio.Event()
        self.open = self.most_open = 0

    def __call__(self):
        protocol = Arriving(self)
        self.made.append(protocol)
        return protocol

    def count(self, step):
        self.open += step
        self.most_open = max(self.most_open, self.open)
        self._changed.set()

    async def until(self, predicate):
        while not predicate():
            self._changed.clear()
            await self._changed.wait()


class Arriving(Recorder):
    def __init__(self, arrivals):
        super().__init__()
        self.arrivals = arrivals

    def connection_made(self, transport):
        super().connection_made(transport)
        self.arrivals.count(1)

    def connection_lost(self, exc):
        super().connection_lost(exc)
        self.arrivals.count(-1)


def connect(server):
    return socket.create_connection(server.sockets[0].getsockname())


async def finish(server, arrivals, *clients):
    """Leaves nothing open on either side."""
    server.close()
    for protocol in arrivals.made:
        if protocol.transport is not None:
            protocol.transport.abort()
    for client in clients:
        client.close()
    await arrivals.until(lambda: arrivals.open == 0)
    await turns()


async def turns(count=20):
    """So many turns, each of which polls: enough for whatever could happen to happen."""
    for _ in range(count):
        await asyncio.sleep(0.0005)


async def test_what_a_loop_makes_is_asyncios_server(loop):
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    assert isinstance(server, asyncio.Server)
    assert repr(server).startswith("<Server sockets=(<asyncio.TransportSocket")
    assert (server.is_serving(), server.is_accepting(), server.max_connections) == (True, True, None)
    server.close()
    await server.wait_closed()
    assert (server.is_serving(), server.is_accepting(), server.sockets) == (False, False, ())


async def test_a_paused_server_accepts_nothing_and_loses_nobody(loop):
    arrivals = Arrivals()
    server = await loop.create_server(arrivals, "127.0.0.1", 0)
    with connect(server) as early, connect(server) as late:
        await arrivals.until(lambda: arrivals.open == 2)
        server.pause_accepting()
        with connect(server) as waiting:
            waiting.sendall(b"hello")
            early.sendall(b"hello")
            await arrivals.made[0].until_bytes(5)
            await turns()
            assert (len(arrivals.made), server.is_accepting(), server.is_serving()) == (2, False, True)
            server.resume_accepting()
            await arrivals.until(lambda: arrivals.open == 3)
            await arrivals.made[2].until_bytes(5)
        late.close()
    await finish(server, arrivals)


async def test_pausing_and_resuming_twice_is_as_once(loop):
    arrivals = Arrivals()
    server = await loop.create_server(arrivals, "127.0.0.1", 0)
    server.resume_accepting()
    server.pause_accepting()
    server.pause_accepting()
    server.resume_accepting()
    with connect(server):
        await arrivals.until(lambda: arrivals.open == 1)
    await finish(server, arrivals)


async def test_a_server_paused_before_it_starts_accepts_once_it_is_resumed(loop):
    arrivals = Arrivals()
    server = await loop.create_server(arrivals, "127.0.0.1", 0, start_serving=False)
    server.pause_accepting()
    await server.start_serving()
    with connect(server):
        await turns()
        assert arrivals.made == []
        server.resume_accepting()
        await arrivals.until(lambda: arrivals.open == 1)
    await finish(server, arrivals)


async def test_a_server_closed_while_paused_stays_closed(loop):
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    server.pause_accepting()
    server.close()
    server.resume_accepting()
    assert not server.is_accepting()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)


async def test_connections_after_a_pause_run_in_the_context_the_server_was_started_in(loop):
    name = contextvars.ContextVar("name", default="nobody")

    found = []

    class Telling(Recorder):
        def connection_made(self, transport):
            found.append(name.get())
            super().connection_made(transport)

    name.set("server")
    protocol = Telling()
    server = await loop.create_server(lambda: protocol, "127.0.0.1", 0)
    name.set("whoever resumes")
    server.pause_accepting()
    server.resume_accepting()
    with connect(server):
        await protocol.until_event("made")
    await protocol.until_event("lost")
    assert found == ["server"]
    server.close()
    await turns()


async def test_a_full_server_accepts_the_next_when_one_leaves(loop):
    arrivals = Arrivals()
    server = await loop.create_server(arrivals, "127.0.0.1", 0)
    server.max_connections = 3
    clients = [connect(server) for _ in range(10)]
    await arrivals.until(lambda: arrivals.open == 3)
    await turns()
    assert (len(arrivals.made), connection_count(server), server.is_accepting()) == (3, 3, False)
    for left in range(10, 0, -1):
        await arrivals.until(lambda left=left: arrivals.open == min(left, 3))
        gone = arrivals.made[10 - left]
        gone.transport.abort()
        await gone.until_event("lost")
    await arrivals.until(lambda: arrivals.open == 0)
    assert (len(arrivals.made), arrivals.most_open, server.is_accepting()) == (10, 3, True)
    await finish(server, arrivals, *clients)


async def test_a_full_server_that_is_paused_as_well_waits_for_both(loop):
    arrivals = Arrivals()
    server = await loop.create_server(arrivals, "127.0.0.1", 0)
    server.max_connections = 1
    with connect(server), connect(server):
        await arrivals.until(lambda: arrivals.open == 1)
        server.pause_accepting()
        arrivals.made[0].transport.abort()
        await arrivals.until(lambda: arrivals.open == 0)
        await turns()
        assert len(arrivals.made) == 1
        server.resume_accepting()
        await arrivals.until(lambda: len(arrivals.made) == 2)
    await finish(server, arrivals)


async def test_the_bound_can_be_raised_and_lowered(loop):
    arrivals = Arrivals()
    server = await loop.create_server(arrivals, "127.0.0.1", 0)
    server.max_connections = 1
    clients = [connect(server) for _ in range(3)]
    await arrivals.until(lambda: arrivals.open == 1)
    server.max_connections = None
    await arrivals.until(lambda: arrivals.open == 3)
    server.max_connections = 2
    assert (server.is_accepting(), arrivals.open) == (False, 3)
    for bad in [0, -1, True, 1.5, "2"]:
        with pytest.raises(ConfigError, match="max_connections"):
            server.max_connections = bad
    await finish(server, arrivals, *clients)


@pytest.mark.parametrize("poller", POLLERS)
def test_the_config_bounds_every_server(poller):
    loop = build_loop(Config(loop=LoopConfig(poller=poller), pressure=PressureConfig(max_connections=2)))

    async def main():
        arrivals = Arrivals()
        server = await loop.create_server(arrivals, "127.0.0.1", 0)
        clients = [connect(server) for _ in range(5)]
        await arrivals.until(lambda: arrivals.open == 2)
        await turns()
        assert (arrivals.open, server.max_connections) == (2, 2)
        await finish(server, arrivals, *clients)

    loop.run_until_complete(asyncio.wait_for(main(), TIMEOUT_S))
    loop.close()


async def test_several_sockets_share_one_bound(loop):
    arrivals = Arrivals()
    server = await loop.create_server(arrivals, ["127.0.0.1", "127.0.0.2"], 0)
    server.max_connections = 3
    addresses = [sock.getsockname() for sock in server.sockets]
    clients = [socket.create_connection(address) for address in addresses * 4]
    await arrivals.until(lambda: arrivals.open == 3)
    await turns()
    assert arrivals.most_open == 3
    await finish(server, arrivals, *clients)


async def test_a_tls_server_is_paused_and_bounded_too(loop, contexts):
    arrivals = Arrivals()
    server = await loop.create_server(arrivals, "127.0.0.1", 0, ssl=contexts[0])
    server.max_connections = 2
    address = server.sockets[0].getsockname()

    async def ask():
        protocol = Recorder()
        await loop.create_connection(lambda: protocol, *address, ssl=contexts[1], server_hostname="localhost")
        return protocol

    asked = [asyncio.ensure_future(ask()) for _ in range(6)]
    await arrivals.until(lambda: arrivals.open == 2)
    await turns()
    # what has been accepted, its handshake done or not, is counted
    assert (connection_count(server), len(arrivals.made)) == (2, 2)
    server.pause_accepting()
    for arrived in arrivals.made[:2]:
        arrived.transport.abort()
    await arrivals.until(lambda: arrivals.open == 0)
    await turns()
    assert len(arrivals.made) == 2
    server.resume_accepting()
    for at in range(2, 6):
        await arrivals.until(lambda at=at: len(arrivals.made) > at and "made" in arrivals.made[at].events)
        arrivals.made[at].transport.abort()
    assert arrivals.most_open == 2
    for client in await asyncio.gather(*asked):
        client.transport.abort()
    await arrivals.until(lambda: arrivals.open == 0)
    server.close()
    await server.wait_closed()
    await turns()


async def test_nothing_that_ends_makes_a_drained_server_accept_again(loop):
    arrivals = Arrivals()
    server = await loop.create_server(arrivals, "127.0.0.1", 0)
    server.max_connections = 1
    with connect(server):
        await arrivals.until(lambda: arrivals.open == 1)
        stop_accepting(loop, server)
        arrivals.made[0].transport.abort()
        await arrivals.until(lambda: arrivals.open == 0)
        assert not server.is_accepting()
    await finish(server, arrivals)


def test_a_listening_socket_gives_so_many_and_is_then_as_empty():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        few = FewAccepts(listening, 1)
        with socket.create_connection(listening.getsockname()), socket.create_connection(listening.getsockname()):
            few.accept()[0].close()
            with pytest.raises(BlockingIOError):
                few.accept()
        assert few.fileno() == listening.fileno()
