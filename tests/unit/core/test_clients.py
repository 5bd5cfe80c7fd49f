"""The clients of a server: a ring of links that are part of its transports."""

import asyncio
import gc
import socket
import sys
import weakref

import pytest

from penstock._core.net.clients import Clients
from penstock.loop.servers import connection_count
from tests.loop.wire import Recorder, close_server


class Kept(Recorder):
    made: list["Kept"]

    def connection_made(self, transport):
        super().connection_made(transport)
        self.made.append(self)


@pytest.fixture
def accepted():
    Kept.made = []
    return Kept.made


async def connect(server, count, accepted):
    loop = asyncio.get_running_loop()
    clients = [(await loop.create_connection(Recorder, *server.sockets[0].getsockname()))[1] for _ in range(count)]
    while len(accepted) < count:
        await asyncio.sleep(0)
    return clients


async def test_a_server_knows_its_open_transports(accepted):
    server = await asyncio.get_running_loop().create_server(Kept, "127.0.0.1", 0)
    clients = await connect(server, 3, accepted)
    found = getattr(server, "_clients", None)
    assert connection_count(server) == 3
    if isinstance(found, Clients):
        assert list(found) == [protocol.transport for protocol in accepted] and len(found) == 3
        assert found.copy() == set(found) and accepted[0].transport in found
    clients[1].transport.close()
    await accepted[1].until_event("lost")
    assert connection_count(server) == 2
    for client in clients:
        client.transport.close()
        await client.until_event("lost")
    for protocol in accepted:
        await protocol.until_event("lost")
    await close_server(server)
    assert connection_count(server) == 0


@pytest.mark.skipif(sys.version_info < (3, 12), reason="wait_closed of a closed server waits from 3.12 on")
async def test_wait_closed_waits_for_the_last_transport(accepted):
    server = await asyncio.get_running_loop().create_server(Kept, "127.0.0.1", 0)
    (client,) = await connect(server, 1, accepted)
    server.close()
    closed = asyncio.ensure_future(server.wait_closed())
    await asyncio.sleep(0)
    client.transport.close()
    await client.until_event("lost")
    await closed
    assert accepted[0].events[-1] == "lost"


@pytest.mark.skipif(not hasattr(asyncio.Server, "abort_clients"), reason="new in 3.13")
async def test_abort_clients_aborts_every_transport(accepted):
    server = await asyncio.get_running_loop().create_server(Kept, "127.0.0.1", 0)
    clients = await connect(server, 5, accepted)
    server.abort_clients()
    for protocol in (*accepted, *clients):
        await protocol.until_event("lost")
    await close_server(server)


async def test_a_server_that_a_protocol_factory_closes_refuses_the_connection():
    loop = asyncio.get_running_loop()

    def closing():
        server.close()
        return asyncio.Protocol()

    server = await loop.create_server(closing, "127.0.0.1", 0)
    _, client = await loop.create_connection(Recorder, *server.sockets[0].getsockname())
    await client.until_event("lost")
    assert connection_count(server) == 0
    await server.wait_closed()


def test_a_ring_may_be_freed_before_its_transports():
    async def main():
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Recorder, "127.0.0.1", 0)
        transport, protocol = await loop.create_connection(Recorder, *server.sockets[0].getsockname())
        clients = Clients()
        clients.add(transport)
        assert transport in clients and list(clients) == [transport]
        del clients
        others = Clients()
        assert transport not in others
        others.add(transport)
        others.discard(transport)
        others.discard(transport)
        assert len(others) == 0 and not list(others)
        transport.close()
        await protocol.until_event("lost")
        await close_server(server)

    asyncio.run(main())


def test_other_objects_are_referred_to_weakly():
    class Foreign:
        pass

    clients, foreign = Clients(), Foreign()
    seen = weakref.ref(foreign)
    clients.add(foreign)
    assert foreign in clients and len(clients) == 1 and list(clients) == [foreign]
    del foreign
    gc.collect()
    assert seen() is None and len(clients) == 0


class Failing:
    """A protocol that fails before it is connected, and looks at the server's clients as it goes."""

    server: asyncio.Server
    kept: list[object] = []

    @property
    def connection_made(self):
        self.kept.extend(getattr(self.server, "_clients", ()))
        raise ValueError

    def __del__(self):
        list(getattr(self.server, "_clients", ()))


async def test_a_transport_that_could_not_be_made_is_no_client(accepted):
    made = []

    def fail_once():
        made.append(Failing if not made else Kept)
        return made[-1]()

    server = Failing.server = await asyncio.get_running_loop().create_server(fail_once, "127.0.0.1", 0)
    server.max_connections = 1
    with socket.create_connection(server.sockets[0].getsockname()):
        while not made:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert connection_count(server) == 0
        Failing.kept.clear()
        assert connection_count(server) == 0
    (client,) = await connect(server, 1, accepted)
    client.transport.close()
    await close_server(server)
