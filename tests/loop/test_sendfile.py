"""Files over connections and sockets: parts, odd files, files and peers that change in the middle, what is restored."""

import asyncio
import contextlib
import io
import os
import socket

import pytest

from .tls.conftest import certificates, pair  # noqa: F401 (fixtures)
from .tls.peer import Peer, secured
from .wire import Recorder, pattern, read_exactly, read_to_end, settle, socket_pair, wired

SIZE = 3_000_000


class PlainPeer:
    """The other end without TLS, with a TLS peer's methods."""

    def __init__(self, sock):
        self.sock = sock

    async def read_exactly(self, count):
        return await read_exactly(self.sock, count)

    async def write(self, data):
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    reset = Peer.reset


@pytest.fixture(params=["plain", "tls"])
def link(request):
    """`link(protocol=None)`: a transport, its protocol and its peer, with TLS and without."""

    @contextlib.asynccontextmanager
    async def connected(protocol=None):
        if request.param == "tls":
            contexts = request.getfixturevalue("pair")
            async with secured(contexts, "server", protocol) as ends:
                yield ends
        else:
            async with wired(protocol) as (transport, protocol, sock):
                yield transport, protocol, PlainPeer(sock)

    if request.param == "tls":
        request.getfixturevalue("pair")
    connected.kind = request.param
    return connected


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(pattern(SIZE))
    return path


@pytest.fixture
def file(path):
    with path.open("rb") as file:
        yield file


@pytest.mark.parametrize(
    ("offset", "count", "sent"),
    [
        (0, None, SIZE),
        (1, None, SIZE - 1),
        (0, 1, 1),
        (SIZE - 1, None, 1),
        (SIZE - 1, 100, 1),
        (SIZE, None, 0),
        (SIZE + 1000, None, 0),
        (SIZE, 10, 0),
        (1_000_000, 1_500_000, 1_500_000),
        (0, 10 * SIZE, SIZE),
    ],
)
async def test_a_part_of_a_file(loop, link, file, offset, count, sent):
    async with link() as (transport, _, peer):
        transport.write(b"before")
        receiving = asyncio.ensure_future(peer.read_exactly(sent + 11))
        assert await loop.sendfile(transport, file, offset, count) == sent
        transport.write(b"after")
        assert await receiving == b"before" + pattern(SIZE)[offset : offset + sent] + b"after"
        if sent:
            assert file.tell() == offset + sent


async def test_an_empty_file(loop, link, tmp_path):
    (tmp_path / "empty").touch()
    async with link() as (transport, _, peer):
        with (tmp_path / "empty").open("rb") as file:
            assert await loop.sendfile(transport, file) == 0
        transport.write(b"end")
        assert await peer.read_exactly(3) == b"end"


async def test_a_file_in_memory(loop, link):
    async with link() as (transport, _, peer):
        file = io.BytesIO(pattern(1_000_000))
        receiving = asyncio.ensure_future(peer.read_exactly(900_000))
        assert await loop.sendfile(transport, file, 50_000, 900_000) == 900_000
        assert await receiving == pattern(1_000_000)[50_000:950_000]
        assert file.tell() == 950_000


async def test_one_file_after_the_other(loop, link, file):
    async with link() as (transport, _, peer):
        receiving = asyncio.ensure_future(peer.read_exactly(3 * SIZE))
        for _ in range(3):
            assert await loop.sendfile(transport, file) == SIZE
            file.seek(0)  # without an offset the fallback starts where the file stands
        assert await receiving == pattern(SIZE) * 3


async def test_without_the_fallback_what_the_kernel_cannot_send_is_an_error(loop, link):
    async with link() as (transport, protocol, _):
        expected = RuntimeError if link.kind == "tls" else asyncio.SendfileNotAvailableError
        message = "fallback is disabled and native sendfile is not supported" if link.kind == "tls" else "not a regular"
        with pytest.raises(expected, match=message):
            await loop.sendfile(transport, io.BytesIO(b"data"), fallback=False)
        assert transport.is_reading()
        assert transport.get_protocol() is protocol


async def test_a_closing_transport_is_refused(loop, link, file):
    async with link() as (transport, _, _):
        transport.close()
        with pytest.raises(RuntimeError, match="Transport is closing"):
            await loop.sendfile(transport, file)


async def test_another_kind_of_transport_is_refused(loop, file):
    class Other(asyncio.Transport):
        def is_closing(self):
            return False

    with pytest.raises(RuntimeError, match="sendfile is not supported for transport"):
        await loop.sendfile(Other(), file)


async def test_the_protocol_and_its_reading_are_restored(loop, link, file):
    async with link() as (transport, protocol, peer):
        await peer.write(b"early")
        receiving = asyncio.ensure_future(peer.read_exactly(SIZE))
        await loop.sendfile(transport, file)
        await receiving
        assert transport.get_protocol() is protocol
        assert transport.is_reading()
        await peer.write(b"late")
        await protocol.until_bytes(9)
        assert protocol.data == b"earlylate"
        assert [event for event in protocol.events if event not in ("pause", "resume")] == ["made", "data"]
        assert protocol.events.count("pause") == protocol.events.count("resume")


async def test_a_peer_that_does_not_read_holds_the_file_back(loop, link, path):
    os.truncate(path, 14 << 20)
    async with link() as (transport, _, peer):
        with path.open("rb") as file:
            sending = asyncio.ensure_future(loop.sendfile(transport, file))
            _, pending = await asyncio.wait([sending], timeout=0.2)
            assert pending
            assert transport.get_write_buffer_size() < 2 << 20
            await peer.read_exactly(14 << 20)
            assert await sending == 14 << 20


async def test_a_file_that_shrinks_meanwhile_ends_early(loop, link, path):
    os.truncate(path, 64 << 20)
    async with link() as (transport, _, peer):
        with path.open("rb") as file:
            sending = asyncio.ensure_future(loop.sendfile(transport, file))
            await peer.read_exactly(1000)
            os.truncate(path, 0)
            receiving = asyncio.ensure_future(receive_until(peer, b"end"))
            sent = await sending
            assert 1000 <= sent < 64 << 20
            transport.write(b"end")
            assert await receiving == sent - 1000 + 3


async def receive_until(peer, end):
    """Receive until `end`, which the file does not contain; return the number of bytes."""
    count = 0
    while True:
        byte = await (
            peer.read() if hasattr(peer, "read") else asyncio.get_running_loop().sock_recv(peer.sock, 1 << 18)
        )
        count += len(byte)
        if byte.endswith(end):
            return count


async def test_a_peer_that_resets_ends_it(loop, link, path):
    os.truncate(path, 64 << 20)
    async with link() as (transport, protocol, peer):
        with path.open("rb") as file:
            sending = asyncio.ensure_future(loop.sendfile(transport, file))
            await peer.read_exactly(1000)
            peer.reset()
            with pytest.raises(ConnectionError):
                await sending
        if link.kind == "tls":
            await protocol.until_event("lost")
            assert isinstance(protocol.error, ConnectionError)


async def test_cancelling_it_leaves_a_usable_connection(loop, link, path):
    os.truncate(path, 64 << 20)
    async with link() as (transport, protocol, peer):
        with path.open("rb") as file:
            sending = asyncio.ensure_future(loop.sendfile(transport, file))
            await peer.read_exactly(1000)
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
        assert transport.get_protocol() is protocol
        assert transport.is_reading()
        transport.write(b"end")
        await receive_until(peer, b"end")
        await peer.write(b"x")
        await protocol.until_bytes(1)


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_ending_the_connection_in_the_middle(loop, pair, path, how):  # noqa: F811
    """Over TLS: without it asyncio's call never returns."""
    os.truncate(path, 64 << 20)
    async with secured(pair, "server", ssl_shutdown_timeout=0.2) as (transport, protocol, peer):
        with path.open("rb") as file:
            sending = asyncio.ensure_future(loop.sendfile(transport, file))
            await peer.read_exactly(1000)
            getattr(transport, how)()
            with pytest.raises((ConnectionError, TimeoutError, RuntimeError)):
                await sending
        await protocol.until_event("lost")
        assert protocol.events.count("lost") == 1


# --- sockets


@pytest.mark.parametrize(
    ("offset", "count", "sent"), [(0, None, SIZE), (5, 10, 10), (SIZE, None, 0), (7, SIZE, SIZE - 7)]
)
async def test_a_socket_sends_a_part_of_a_file(loop, file, offset, count, sent):
    ours, theirs = socket_pair()
    receiving = asyncio.ensure_future(read_to_end(theirs))
    assert await loop.sock_sendfile(ours, file, offset, count) == sent
    ours.close()
    assert await receiving == pattern(SIZE)[offset : offset + sent]
    theirs.close()


async def test_a_socket_sends_a_file_in_memory_by_hand(loop):
    ours, theirs = socket_pair()
    receiving = asyncio.ensure_future(read_to_end(theirs))
    file = io.BytesIO(pattern(1_000_000))
    with pytest.raises(asyncio.SendfileNotAvailableError):
        await loop.sock_sendfile(ours, file, fallback=False)
    assert await loop.sock_sendfile(ours, file, 1000, 500_000) == 500_000
    assert file.tell() == 501_000
    ours.close()
    assert await receiving == pattern(1_000_000)[1000:501_000]
    theirs.close()


async def test_what_does_not_fit_is_refused(loop, path, file):
    ours, theirs = socket_pair()
    refused = [
        ((ours, file, -1), ValueError, "offset must be a non-negative integer"),
        ((ours, file, 1.5), TypeError, "offset must be a non-negative integer"),
        ((ours, file, 0, 0), ValueError, "count must be a positive integer"),
        ((ours, file, 0, -5), ValueError, "count must be a positive integer"),
        ((ours, file, 0, 1.5), TypeError, "count must be a positive integer"),
    ]
    for arguments, error, message in refused:
        with pytest.raises(error, match=message):
            await loop.sock_sendfile(*arguments)
    with path.open("r") as text, pytest.raises(ValueError, match="file should be opened in binary mode"):
        await loop.sock_sendfile(ours, text)
    with socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        datagrams.setblocking(False)
        with pytest.raises(ValueError, match="only SOCK_STREAM type sockets are supported"):
            await loop.sock_sendfile(datagrams, file)
    loop.set_debug(True)
    ours.setblocking(True)
    with pytest.raises(ValueError, match="the socket must be non-blocking"):
        await loop.sock_sendfile(ours, file)
    ours.close()
    theirs.close()


async def test_a_cancelled_socket_send_leaves_the_socket_usable(loop, path):
    os.truncate(path, 64 << 20)
    ours, theirs = socket_pair()
    with path.open("rb") as file:
        sending = asyncio.ensure_future(loop.sock_sendfile(ours, file))
        await read_exactly(theirs, 1000)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
    receiving = asyncio.ensure_future(receive_until(PlainPeer(theirs), b"end"))
    await loop.sock_sendall(ours, b"end")
    await receiving
    ours.close()
    theirs.close()


async def test_a_socket_whose_peer_resets_fails(loop, path):
    os.truncate(path, 64 << 20)
    ours, theirs = socket_pair()
    with path.open("rb") as file:
        sending = asyncio.ensure_future(loop.sock_sendfile(ours, file))
        await read_exactly(theirs, 1000)
        PlainPeer(theirs).reset()
        with pytest.raises(ConnectionError):
            await sending
    ours.close()


async def test_reading_goes_on_after_a_failed_file(loop, link, tmp_path):
    async with link() as (transport, protocol, peer):
        file = (tmp_path / "closed").open("wb+")
        file.close()
        with pytest.raises(ValueError, match="closed file"):
            await loop.sendfile(transport, file)
        assert transport.get_protocol() is protocol
        assert transport.is_reading()
        await peer.write(b"x")
        await protocol.until_bytes(1)
        await settle()
        assert isinstance(protocol, Recorder)
