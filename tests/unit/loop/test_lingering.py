"""A transport that is closed while its client sends: the client reads the last answer, on any loop. Real sockets."""

import asyncio
import functools
import gc
import socket
import struct

import pytest

from penstock.loop import lingering
from penstock.loop.lingering import close_lingering
from tests.support.loops import BOTH, run_on

ANSWER = b"busy\n"
RESETS = struct.pack("ii", 1, 0)
PATIENCE_S = 20.0


@pytest.fixture(params=sorted(BOTH))
def run(request):
    return functools.partial(run_on, BOTH[request.param])


@pytest.fixture
def run_plain():
    """On asyncio's own loop, whose transports cannot linger by themselves."""
    return functools.partial(run_on, asyncio.SelectorEventLoop)


class Refusing(asyncio.Protocol):
    """Answers with the first byte that comes, and reads no more."""

    def __init__(self):
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(ANSWER)
        close_lingering(self.transport)

    def connection_lost(self, error):
        self.lost.set_result(error)


def talk(address, size_bytes):
    with socket.create_connection(address, timeout=20) as client:
        client.sendall(bytes(size_bytes))
        got = b""
        while piece := client.recv(65536):
            got += piece
    return got


async def served():
    """A server, and the protocols that it makes."""
    made = []

    def make():
        made.append(Refusing())
        return made[-1]

    server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname(), made


@pytest.mark.parametrize("size_bytes", [1, 200_000, 1_000_000])
def test_a_client_that_sends_all_before_it_reads_gets_the_answer(run, size_bytes):
    async def main():
        server, address, made = await served()
        assert await asyncio.gather(*[asyncio.to_thread(talk, address, size_bytes) for _ in range(8)]) == [ANSWER] * 8
        assert await asyncio.gather(*[protocol.lost for protocol in made]) == [None] * 8
        server.close()

    run(main())
    assert not lingering._lingering


async def test_over_tls_it_gets_the_answer_too_and_has_to_leave_itself(contexts):
    def talk_tls(address):
        with (
            socket.create_connection(address, timeout=20) as plain,
            contexts[1].wrap_socket(plain, server_hostname="localhost") as client,
        ):
            client.sendall(bytes(1_000_000))
            return client.recv(65536)

    made = []

    def make():
        made.append(Refusing())
        return made[-1]

    server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0, ssl=contexts[0])
    address = server.sockets[0].getsockname()
    assert await asyncio.gather(*[asyncio.to_thread(talk_tls, address) for _ in range(4)]) == [ANSWER] * 4
    await asyncio.gather(*[protocol.lost for protocol in made])
    server.close()


async def test_who_sends_without_end_is_cut():
    server, address, made = await served()
    with pytest.raises(ConnectionError):
        await asyncio.to_thread(talk, address, 64_000_000)
    assert await made[0].lost is None
    server.close()


def test_who_does_not_leave_is_cut_in_time(run_plain, monkeypatch):
    monkeypatch.setattr(lingering, "LINGER_S", 0.02)

    async def main():
        server, address, made = await served()
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"x")
        assert await reader.read() == ANSWER
        assert await made[0].lost is None
        writer.close()
        server.close()

    run_plain(main())


def test_beyond_the_bound_it_is_closed_at_once(run_plain, monkeypatch):
    monkeypatch.setattr(lingering, "MOST_AT_ONCE", 1)

    async def main():
        server, address, made = await served()
        clients = [await asyncio.open_connection(*address) for _ in range(2)]
        for reader, writer in clients:
            writer.write(b"x")
            assert await reader.read() == ANSWER
        # the first lingers: its client is still there
        await made[1].lost
        assert not made[0].lost.done()
        assert len(lingering._lingering) == 1
        for _, writer in clients:
            writer.close()
        await made[0].lost
        server.close()

    run_plain(main())
    assert not lingering._lingering


def test_one_that_lingers_as_its_loop_ends_keeps_no_place(run_plain):
    async def main():
        server, address, made = await served()
        client = await asyncio.to_thread(socket.create_connection, address)
        client.sendall(b"x")
        while not lingering._lingering:
            await asyncio.sleep(0.001)
        server.close()
        return client

    with pytest.warns(ResourceWarning, match="unclosed"):
        run_plain(main()).close()
        gc.collect()
    assert not lingering._lingering


async def test_one_that_is_closing_already_stays_as_it_is():
    server, address, made = await served()
    _, writer = await asyncio.open_connection(*address)
    while not (made and hasattr(made[0], "transport")):
        await asyncio.sleep(0.001)
    made[0].transport.close()
    close_lingering(made[0].transport)
    assert await made[0].lost is None
    writer.close()
    server.close()


class RefusingGone(asyncio.Protocol):
    """Refuses a connection in the turn that accepts it, after its client has reset it."""

    def __init__(self, client, ended):
        self.client, self.ended = client, ended
        self.failure = None

    def connection_made(self, transport):
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESETS)
        self.client.close()
        try:
            close_lingering(transport)
        except OSError as error:
            self.failure = error

    def connection_lost(self, error):
        self.ended.set_result(self.failure)


async def test_a_refusal_of_a_client_that_has_gone_ends_the_connection():
    loop = asyncio.get_running_loop()
    ended, client = loop.create_future(), socket.socket()
    server = await loop.create_server(lambda: RefusingGone(client, ended), "127.0.0.1", 0)
    client.connect(server.sockets[0].getsockname())
    assert await ended is None
    server.close()
