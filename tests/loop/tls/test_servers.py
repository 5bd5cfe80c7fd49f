"""TLS servers: their ends with clients connected, their bounds, and running out of descriptors."""

import asyncio
import contextvars
import socket
import sys

import pytest

from penstock.loop.servers import Server

from ..test_servers import no_more_descriptors
from ..wire import Recorder, close_server

has_clients = pytest.mark.skipif(sys.version_info < (3, 13), reason="new in 3.13")


class Served:
    """A server of recorders, and the clients that it has had."""

    def __init__(self, loop, pair):
        self.loop, self.pair, self.accepted, self.waiting = loop, pair, [], asyncio.Queue()

    def protocol(self):
        self.accepted.append(Recorder())
        return self.accepted[-1]

    async def start(self, **options):
        self.server = await self.loop.create_server(self.protocol, "127.0.0.1", 0, ssl=self.pair[0], **options)
        self.address = self.server.sockets[0].getsockname()
        return self

    async def connect(self):
        """Return the protocols of a new client and of its connection at the server."""
        _, client = await self.loop.create_connection(
            Recorder, *self.address, ssl=self.pair[1], server_hostname="localhost"
        )
        client.transport.write(b"x")
        accepted = self.accepted[-1]
        await accepted.until_bytes(1)
        return client, accepted


async def ended(*protocols):
    for protocol in protocols:
        await protocol.until_event("lost")


async def test_a_server_answers_many_clients(loop, pair):
    async def serve(reader, writer):
        writer.write(await reader.readexactly(1000))
        writer.close()
        await writer.wait_closed()

    async def ask(number):
        reader, writer = await asyncio.open_connection(*address, ssl=pair[1], server_hostname="localhost")
        writer.write(bytes([number]) * 1000)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=pair[0])
    address = server.sockets[0].getsockname()
    assert await asyncio.gather(*map(ask, range(50))) == [bytes([number]) * 1000 for number in range(50)]
    await close_server(server)


async def test_a_server_on_a_unix_socket(loop, pair, tmp_path):
    accepted = Recorder()
    server = await loop.create_unix_server(lambda: accepted, str(tmp_path / "s"), ssl=pair[0])
    _, client = await loop.create_unix_connection(
        Recorder, str(tmp_path / "s"), ssl=pair[1], server_hostname="localhost"
    )
    client.transport.write(b"x")
    await accepted.until_bytes(1)
    client.transport.close()
    await ended(client, accepted)
    await close_server(server)


async def test_a_closed_server_keeps_its_connections(loop, pair):
    served = await Served(loop, pair).start()
    client, accepted = await served.connect()
    served.server.close()
    client.transport.write(b"y")
    await accepted.until_bytes(2)
    client.transport.close()
    await ended(client, accepted)
    await served.server.wait_closed()


@pytest.mark.skipif(sys.version_info < (3, 12, 1), reason="earlier versions do not wait")
async def test_wait_closed_waits_for_tls_connections(loop, pair):
    served = await Served(loop, pair).start()
    client, accepted = await served.connect()
    served.server.close()
    waiting = asyncio.ensure_future(served.server.wait_closed())
    for _ in range(100):
        await asyncio.sleep(0)
    assert not waiting.done()
    accepted.transport.abort()
    await waiting
    await ended(client, accepted)


@has_clients
async def test_close_clients_closes_with_close_notify(loop, pair):
    served = await Served(loop, pair).start()
    client, accepted = await served.connect()
    served.server.close()
    served.server.close_clients()
    await served.server.wait_closed()
    await ended(client, accepted)
    assert accepted.error is None
    assert client.error is None
    assert client.events == ["made", "eof", "lost"]


@has_clients
async def test_abort_clients_aborts(loop, pair):
    served = await Served(loop, pair).start()
    client, accepted = await served.connect()
    accepted.transport.write(bytes(1 << 22))
    served.server.close()
    served.server.abort_clients()
    await served.server.wait_closed()
    await ended(client, accepted)
    assert accepted.error is None


async def test_connections_beyond_the_bound_wait(loop, pair):
    served = await Served(loop, pair).start()
    if not isinstance(served.server, Server):
        await close_server(served.server)
        pytest.skip("asyncio's servers have no bound")
    served.server.max_connections = 2
    first, second = await served.connect(), await served.connect()
    third = asyncio.ensure_future(served.connect())
    _, pending = await asyncio.wait([third], timeout=0.1)
    assert pending
    assert len(served.accepted) == 2
    first[0].transport.close()
    await ended(*first)
    pair_of_third = await third
    for client, _ in (second, pair_of_third):
        client.transport.close()
    await ended(*second, *pair_of_third)
    await close_server(served.server)


async def test_a_connection_in_its_handshake_counts(loop, pair):
    """A client that says nothing holds its place until the handshake's time is over."""
    served = await Served(loop, pair).start(ssl_handshake_timeout=0.2)
    if not isinstance(served.server, Server):
        await close_server(served.server)
        pytest.skip("asyncio's servers have no bound")
    served.server.max_connections = 1
    _, silent = await loop.create_connection(Recorder, *served.address)
    client, accepted = await served.connect()
    await silent.until_event("lost")
    client.transport.close()
    await ended(client, accepted, silent)
    await close_server(served.server)


async def test_a_server_without_descriptors_goes_on_later(loop, pair, problems):
    served = await Served(loop, pair).start()
    sock = socket.socket()
    sock.setblocking(False)
    with no_more_descriptors():
        connecting = asyncio.ensure_future(loop.sock_connect(sock, served.address))
        while not problems:
            await asyncio.sleep(0.01)
        await connecting
    assert "out of system resource" in problems[0]["message"]
    _, client = await loop.create_connection(Recorder, sock=sock, ssl=pair[1], server_hostname="localhost")
    client.transport.write(b"x")
    accepted = served.accepted[-1]
    await accepted.until_bytes(1)
    client.transport.close()
    await ended(client, accepted)
    await close_server(served.server)


VARIABLE = contextvars.ContextVar("VARIABLE", default="unset")


@pytest.mark.skipif(sys.version_info < (3, 15), reason="new in 3.15")
async def test_each_connection_has_a_context_of_its_own(loop, pair):
    class Noting(Recorder):
        def connection_made(self, transport):
            self.seen = [VARIABLE.get()]
            VARIABLE.set(id(self))
            super().connection_made(transport)

        def data_received(self, data):
            self.seen.append(VARIABLE.get())
            super().data_received(data)

        def eof_received(self):
            self.seen.append(VARIABLE.get())
            return super().eof_received()

        def connection_lost(self, exc):
            self.seen.append(VARIABLE.get())
            super().connection_lost(exc)

    VARIABLE.set("of the server")
    served = Served(loop, pair)
    served.protocol = lambda: served.accepted.append(Noting()) or served.accepted[-1]
    await served.start()
    VARIABLE.set("later")
    pairs = [await served.connect() for _ in range(2)]
    for client, accepted in pairs:
        client.transport.close()
        await ended(client, accepted)
        assert accepted.seen == ["of the server", *[id(accepted)] * 3]
    await close_server(served.server)
