"""start_tls in the middle of a connection, on both sides, with streams and protocols, and TLS inside TLS."""

import asyncio
import contextlib
import inspect
import socket
import ssl
import sys

import pytest

from ..wire import Recorder, close_server, pattern, read_exactly, read_to_end, settle, socket_pair, wired
from .peer import Peer, connect, is_asyncios, peer_of, secured

LARGE = 2 << 20
TAKES_OVER = "gh-142352" in inspect.getsource(asyncio.BaseEventLoop.start_tls)


def arguments(side):
    return {"server_side": True} if side == "server" else {"server_hostname": "localhost"}


def context_of(pair, side):
    return pair[0 if side == "server" else 1]


@contextlib.asynccontextmanager
async def upgraded(pair, side, protocol=None):
    """A plain transport that went over to TLS, the transport that it got, its protocol, and its peer."""
    loop = asyncio.get_running_loop()
    async with wired(protocol) as (plain, protocol, sock):
        peer = peer_of(sock, pair, side)
        upgrading = loop.start_tls(plain, protocol, context_of(pair, side), **arguments(side))
        transport, _ = await asyncio.gather(upgrading, peer.handshake())
        yield plain, transport, protocol, peer
        if not transport.is_closing():
            transport.abort()
        await protocol.until_event("lost")


async def test_a_transport_goes_over_to_tls(pair, side):
    async with upgraded(pair, side) as (plain, transport, protocol, peer):
        assert transport is not plain
        assert transport.get_protocol() is protocol
        assert transport.get_extra_info("ssl_object").version() is not None
        assert transport.get_extra_info("sslcontext") is context_of(pair, side)
        assert protocol.events == ["made"]
        transport.write(b"there")
        assert await peer.read_exactly(5) == b"there"
        await peer.write(b"back")
        await protocol.until_bytes(4)
        transport.close()
        await peer.close()
        await protocol.until_event("lost")
        assert protocol.events == ["made", "data", "eof", "lost"]
        assert plain.is_closing()


async def test_what_was_written_before_comes_first(loop, pair, side):
    async with wired() as (plain, protocol, sock):
        plain.write(pattern(LARGE))
        upgrading = asyncio.ensure_future(loop.start_tls(plain, protocol, context_of(pair, side), **arguments(side)))
        assert await read_exactly(sock, LARGE) == pattern(LARGE)
        peer = peer_of(sock, pair, side)
        await peer.handshake()
        transport = await upgrading
        transport.abort()
        await protocol.until_event("lost")


async def test_a_paused_transport_is_resumed(loop, pair, side):
    async with wired() as (plain, protocol, sock):
        plain.pause_reading()
        peer = peer_of(sock, pair, side)
        upgrading = loop.start_tls(plain, protocol, context_of(pair, side), **arguments(side))
        transport, _ = await asyncio.gather(upgrading, peer.handshake())
        await peer.write(b"x")
        await protocol.until_bytes(1)
        transport.abort()
        await protocol.until_event("lost")


async def test_the_hello_that_came_before_start_tls_is_not_plain_data(loop, pair):
    """It waits in the kernel while reading is paused: the protocol never sees it."""
    async with wired() as (plain, protocol, sock):
        plain.pause_reading()
        peer = peer_of(sock, pair, "server")
        shaking = asyncio.ensure_future(peer.handshake())
        await settle(20)
        transport = await loop.start_tls(plain, protocol, pair[0], server_side=True)
        await shaking
        assert protocol.data == b""
        transport.abort()
        await protocol.until_event("lost")


async def test_a_hello_behind_a_line_of_a_stream_is_taken_over(loop, pair):
    """gh-142352, uvloop#707: the line and the ClientHello come in one segment, as behind a proxy."""
    if not TAKES_OVER and type(loop).start_tls is asyncio.BaseEventLoop.start_tls:
        pytest.skip("this asyncio loses the bytes")
    received = loop.create_future()

    async def serve(reader, writer):
        line = await reader.readline()
        assert reader._buffer, "the hello came with the line"
        await writer.start_tls(pair[0])
        received.set_result((line, await reader.readexactly(4)))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    with socket.create_connection(server.sockets[0].getsockname()) as sock:
        sock.setblocking(False)
        peer = Peer(sock, pair[1], is_server=False)
        with pytest.raises(ssl.SSLWantReadError):
            peer.tls.do_handshake()
        await peer.send(b"PROXY TCP4\r\n" + peer.outgoing.read())
        await peer.handshake()
        await peer.write(b"data")
        assert await received == (b"PROXY TCP4\r\n", b"data")
        await peer.close()
    await close_server(server)


async def test_streams_upgrade_and_carry_on(loop, pair):
    async def serve(reader, writer):
        for _ in range(2):
            line = await reader.readline()
            writer.write(line.upper())
            await writer.drain()
            if line == b"starttls\n":
                await writer.start_tls(pair[0])
        data = await reader.readexactly(LARGE)
        writer.write(data)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"starttls\n")
    assert await reader.readline() == b"STARTTLS\n"
    await writer.start_tls(pair[1], server_hostname="localhost")
    assert writer.get_extra_info("ssl_object") is not None
    writer.write(b"go\n")
    assert await reader.readline() == b"GO\n"
    writer.write(pattern(LARGE))
    assert await reader.readexactly(LARGE) == pattern(LARGE)
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
    await close_server(server)


async def test_a_bad_certificate_ends_the_connection(loop, certificates, problems):
    contexts = certificates.server("expired"), certificates.client()
    async with wired() as (plain, protocol, sock):
        peer = peer_of(sock, contexts, "client")
        upgrading = loop.start_tls(plain, protocol, contexts[1], server_hostname="localhost")
        failed, _ = await asyncio.gather(upgrading, peer.handshake(), return_exceptions=True)
        assert type(failed) is ssl.SSLCertVerificationError
        await protocol.until_event("lost")
        assert protocol.error is failed
        assert plain.is_closing()
    assert problems == []


@pytest.mark.parametrize("how", ["end", "garbage", "reset"])
async def test_a_peer_that_does_not_speak_tls_ends_the_connection(loop, pair, side, problems, how):
    async with wired() as (plain, protocol, sock):
        peer = peer_of(sock, pair, side)
        upgrading = asyncio.ensure_future(loop.start_tls(plain, protocol, context_of(pair, side), **arguments(side)))
        if side == "client":
            await peer.receive()
        if how == "garbage":
            await peer.send(b"no thanks\r\n")
        elif how == "reset":
            peer.reset()
        else:
            sock.shutdown(1)
        with pytest.raises(ssl.SSLError if how == "garbage" else ConnectionResetError):
            await upgrading
        assert plain.is_closing()
    assert problems == []


async def test_a_handshake_without_an_answer_times_out(loop, pair, side, problems):
    async with wired() as (plain, protocol, sock):
        with pytest.raises(ConnectionAbortedError, match=r"SSL handshake is taking longer than 0\.05 seconds"):
            await loop.start_tls(plain, protocol, context_of(pair, side), **arguments(side), ssl_handshake_timeout=0.05)
        await read_to_end(sock)
        assert plain.is_closing()
    assert problems == []


async def test_a_cancelled_upgrade_leaves_nothing(loop, pair, side, problems):
    async with wired() as (plain, protocol, sock):
        upgrading = asyncio.ensure_future(loop.start_tls(plain, protocol, context_of(pair, side), **arguments(side)))
        await settle(20)
        upgrading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await upgrading
        assert plain.is_closing()
        await read_to_end(sock)
        await settle(20)
        assert plain.get_extra_info("socket").fileno() == -1
    assert problems == []


async def test_an_upgrade_cancelled_at_once_leaves_nothing(loop, pair, side, problems):
    async with wired() as (plain, protocol, sock):
        upgrading = asyncio.ensure_future(loop.start_tls(plain, protocol, context_of(pair, side), **arguments(side)))
        await asyncio.sleep(0)
        upgrading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await upgrading
        await read_to_end(sock)
        assert plain.is_closing()
    assert problems == []


async def test_what_cannot_be_upgraded_is_refused(loop, pair):
    async with wired() as (plain, protocol, _):
        with pytest.raises(TypeError, match=r"sslcontext is expected to be an instance of ssl\.SSLContext"):
            await loop.start_tls(plain, protocol, None)
        for value in (0, -1):
            with pytest.raises(ValueError, match=f"ssl_handshake_timeout should be a positive number, got {value}"):
                await loop.start_tls(plain, protocol, pair[1], ssl_handshake_timeout=value)
            with pytest.raises(ValueError, match=f"ssl_shutdown_timeout should be a positive number, got {value}"):
                await loop.start_tls(plain, protocol, pair[1], ssl_shutdown_timeout=value)
        transport = asyncio.Transport()
        with pytest.raises(TypeError, match=r"transport .* is not supported by start_tls\(\)"):
            await loop.start_tls(transport, protocol, pair[1])
        assert not plain.is_closing()


# --- TLS inside TLS


@contextlib.asynccontextmanager
async def nested(pair):
    """Both sides of a connection of TLS inside TLS: transports and protocols, the server's first."""
    loop = asyncio.get_running_loop()
    protocols = Recorder(), Recorder()
    ours, theirs = socket_pair()
    outer = await asyncio.gather(
        connect(ours, pair, "server", protocols[0]), connect(theirs, pair, "client", protocols[1])
    )
    inner = await asyncio.gather(
        loop.start_tls(outer[0][0], protocols[0], pair[0], server_side=True),
        loop.start_tls(outer[1][0], protocols[1], pair[1], server_hostname="localhost"),
    )
    yield inner, protocols, [transport for transport, _ in outer]
    for transport, protocol in zip(inner, protocols, strict=True):
        transport.abort()
        await protocol.until_event("lost")


async def test_tls_inside_tls_carries_every_byte(pair):
    async with nested(pair) as (inner, protocols, outer):
        assert inner[0].get_extra_info("ssl_object") is not outer[0].get_extra_info("ssl_object")
        inner[0].write(pattern(LARGE))
        inner[1].write(b"hello")
        await protocols[1].until_bytes(LARGE)
        await protocols[0].until_bytes(5)
        assert protocols[1].data == pattern(LARGE)
        assert protocols[0].data == b"hello"


async def test_closing_the_inner_tls_closes_the_outer(pair):
    async with nested(pair) as (inner, protocols, outer):
        inner[1].write(b"last")
        inner[1].close()
        for protocol in protocols:
            await protocol.until_event("lost")
            assert protocol.error is None
        assert protocols[0].data == b"last"
        assert all(transport.is_closing() for transport in outer)


async def test_aborting_the_inner_tls_ends_both_sides(pair, problems):
    async with nested(pair) as (inner, protocols, outer):
        inner[0].abort()
        for protocol in protocols:
            await protocol.until_event("lost")
        assert all(transport.is_closing() for transport in outer)
    assert problems == []


async def test_a_peer_without_inner_tls_fails_the_upgrade(loop, pair, problems):
    async with secured(pair, "client") as (transport, protocol, peer):
        if is_asyncios(transport) and sys.version_info < (3, 13):
            pytest.skip("asyncio's own TypeError ends it")
        upgrading = asyncio.ensure_future(loop.start_tls(transport, protocol, pair[1], server_hostname="localhost"))
        await peer.read()
        await peer.write(b"no thanks\r\n")
        with pytest.raises(ssl.SSLError):
            await upgrading
        await protocol.until_event("lost")
    assert problems == []


async def test_the_end_of_the_transport_below_comes_behind_what_was_written(pair, side):
    async with upgraded(pair, side) as (plain, transport, _, peer):
        transport.write(b"last")
        plain.write_eof()
        assert await peer.read_exactly(4) == b"last"
        assert await peer.receive() == b""


async def test_writes_are_sent_when_the_transport_below_gets_another_protocol(pair, side):
    heir = Recorder()
    async with upgraded(pair, side) as (plain, transport, protocol, peer):
        transport.write(b"before")
        former = plain.get_protocol()
        plain.set_protocol(heir)
        transport.write(b"after")
        assert await peer.read_exactly(11) == b"beforeafter"
        transport.write(b"later")
        assert await peer.read_exactly(5) == b"later"
        plain.set_protocol(former)


class Direct(asyncio.Transport):
    """One of two transports in memory: a write calls the other one's protocol at once."""

    _start_tls_compatible = True

    def __init__(self, protocol):
        super().__init__()
        self.protocol, self.other, self.closed = protocol, None, False

    def write(self, data):
        protocol = self.other.protocol
        if self.other.closed:
            return
        if not isinstance(protocol, asyncio.BufferedProtocol):
            protocol.data_received(data)
            return
        while data:
            lent = protocol.get_buffer(-1)
            size = min(len(lent), len(data))
            lent[:size] = data[:size]
            data = data[size:]
            protocol.buffer_updated(size)

    def set_protocol(self, protocol):
        self.protocol = protocol

    def pause_reading(self):
        pass

    def resume_reading(self):
        pass

    def is_closing(self):
        return self.closed

    def close(self):
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def abort(self):
        self.close()

    def _force_close(self, exc):
        self.close()


class Answering(Recorder):
    """Answers each piece with one byte more, up to a limit."""

    def data_received(self, data):
        super().data_received(data)
        if len(data) < 20:
            self.transport.write(bytes(data) + b"x")


async def test_a_transport_that_calls_back_within_a_write_gets_every_byte_once(loop, pair):
    server, client = Answering(), Answering()
    below = Direct(server), Direct(client)
    below[0].other, below[1].other = below[1], below[0]
    server.transport, client.transport = await asyncio.gather(
        loop.start_tls(below[0], server, pair[0], server_side=True),
        loop.start_tls(below[1], client, pair[1], server_hostname="localhost"),
    )
    client.transport.write(b"x")
    await server.until_bytes(sum(range(1, 20, 2)))
    await client.until_bytes(sum(range(2, 21, 2)))
    assert (len(server.data), len(client.data)) == (100, 110)
    for side in (server, client):
        side.transport.abort()
        await side.until_event("lost")
        assert side.error is None
