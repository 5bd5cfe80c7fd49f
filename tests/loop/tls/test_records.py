"""Records that are cut, broken or not of data: every cut, garbage, post-handshake authentication."""

import asyncio
import fcntl
import ssl
import termios

import pytest

from ..wire import Recorder, pattern, read_to_end, socket_pair
from .peer import HEADER_BYTES, Peer, connect, secured


def unread_bytes(fd):
    return int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), "little")


async def was_read(fd):
    """Wait until the loop has read what the kernel has for the socket: the next bytes come by themselves."""
    while unread_bytes(fd):
        await asyncio.sleep(0)


class Dripping(Peer):
    """Sends each byte by itself."""

    reader_fd = -1

    async def send(self, wire: bytes) -> None:
        for byte in wire:
            await super().send(bytes([byte]))
            await was_read(self.reader_fd)


async def test_every_byte_of_a_connection_by_itself(pair, side, version):
    pair[0].maximum_version = version
    ours, theirs = socket_pair()
    peer = Dripping(theirs, pair[side == "server"], is_server=side == "client")
    peer.reader_fd = ours.fileno()
    protocol = Recorder()
    (transport, _), _ = await asyncio.gather(connect(ours, pair, side, protocol), peer.handshake())
    transport.write(b"there")
    assert await peer.read_exactly(5) == b"there"
    await peer.send(peer.records(b"back") + peer.records(b" again"))
    await protocol.until_bytes(10)
    transport.close()
    assert await peer.read_to_end() == b""
    await Peer.send(peer, peer.close_notify())
    await protocol.until_event("lost")
    assert (bytes(protocol.data), protocol.error) == (b"back again", None)
    assert protocol.events == ["made", "data", "eof", "lost"]
    theirs.close()


async def test_records_cut_at_every_byte(pair, side):
    async with secured(pair, side) as (transport, protocol, peer):
        fd = transport.get_extra_info("socket").fileno()
        expected = b""
        for cut in range(2 * (HEADER_BYTES + 40)):
            wire = peer.records(b"first") + peer.records(b"second")
            await peer.send(wire[:cut])
            await was_read(fd)
            await peer.send(wire[cut:])
            expected += b"firstsecond"
            await protocol.until_bytes(len(expected))
        assert protocol.data == expected


@pytest.mark.parametrize("cut", [0, 1, HEADER_BYTES, HEADER_BYTES + 1, -1])
async def test_a_reset_inside_a_record_is_a_reset(pair, side, problems, cut):
    async with secured(pair, side) as (transport, protocol, peer):
        await peer.send(peer.records(b"data")[:cut])
        await was_read(transport.get_extra_info("socket").fileno())
        peer.reset()
        await protocol.until_event("lost")
        assert isinstance(protocol.error, ConnectionResetError)
        assert protocol.events == ["made", "lost"]
    assert problems == []


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.0\r\n\r\n", bytes(50), b"\x17\x03\x03\x00\x20" + bytes(32)])
async def test_garbage_instead_of_a_record_ends_the_connection(pair, side, version, problems, garbage):
    pair[0].maximum_version = version
    async with secured(pair, side) as (_, protocol, peer):
        await peer.write(b"good")
        await protocol.until_bytes(4)
        await peer.send(garbage)
        await protocol.until_event("lost")
        assert type(protocol.error) is ssl.SSLError
        assert protocol.events == ["made", "data", "lost"]
    assert problems == []


async def test_a_record_that_was_changed_ends_the_connection(pair, side, problems):
    async with secured(pair, side) as (_, protocol, peer):
        wire = bytearray(peer.records(b"data"))
        wire[-1] ^= 1
        await peer.send(bytes(wire))
        await protocol.until_event("lost")
        assert type(protocol.error) is ssl.SSLError
        assert protocol.error.reason == "DECRYPTION_FAILED_OR_BAD_RECORD_MAC"
        assert protocol.events == ["made", "lost"]
    assert problems == []


async def test_a_replayed_record_ends_the_connection(pair, side, problems):
    async with secured(pair, side) as (_, protocol, peer):
        wire = peer.records(b"data")
        await peer.send(wire)
        await protocol.until_bytes(4)
        await peer.send(wire)
        await protocol.until_event("lost")
        assert type(protocol.error) is ssl.SSLError
        assert protocol.data == b"data"
    assert problems == []


async def test_garbage_while_closing_ends_the_connection(pair, side, problems):
    async with secured(pair, side) as (transport, protocol, peer):
        transport.close()
        await peer.send(bytes(50))
        await protocol.until_event("lost")
        assert type(protocol.error) is ssl.SSLError
    assert problems == []


async def test_a_client_authenticates_after_the_handshake(certificates):
    contexts = certificates.server(verify=ssl.CERT_REQUIRED), certificates.client("client")
    contexts[0].post_handshake_auth = contexts[1].post_handshake_auth = True
    async with secured(contexts, "client") as (transport, protocol, peer):
        assert peer.tls.getpeercert() is None
        peer.tls.verify_client_post_handshake()
        await peer.write(b"who are you")
        await protocol.until_bytes(11)
        transport.write(b"see above")
        assert await peer.read_exactly(9) == b"see above"
        assert peer.tls.getpeercert()["subject"] == ((("commonName", "client"),),)


async def test_a_server_asks_for_a_certificate_after_the_handshake(certificates):
    contexts = certificates.server(verify=ssl.CERT_REQUIRED), certificates.client("client")
    contexts[0].post_handshake_auth = contexts[1].post_handshake_auth = True
    async with secured(contexts, "server") as (transport, protocol, peer):
        ssl_object = transport.get_extra_info("ssl_object")
        assert ssl_object.getpeercert() is None
        ssl_object.verify_client_post_handshake()
        transport.write(b"who are you")
        assert await peer.read_exactly(11) == b"who are you"
        await peer.write(b"see above")
        await protocol.until_bytes(9)
        assert ssl_object.getpeercert()["subject"] == ((("commonName", "client"),),)


async def test_a_client_that_cannot_authenticate_loses_the_connection(certificates, problems):
    contexts = certificates.server(verify=ssl.CERT_REQUIRED), certificates.client()
    contexts[0].post_handshake_auth = contexts[1].post_handshake_auth = True
    async with secured(contexts, "server") as (transport, protocol, peer):
        transport.get_extra_info("ssl_object").verify_client_post_handshake()
        transport.write(b"who are you")
        assert await peer.read_exactly(11) == b"who are you"
        await peer.write(b"nobody")
        await protocol.until_event("lost")
        assert type(protocol.error) is ssl.SSLError
        assert protocol.error.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE"
        assert protocol.data == b""
    assert problems == []


async def test_many_small_records_in_one_segment(pair, side):
    async with secured(pair, side) as (_, protocol, peer):
        await peer.send(b"".join(peer.records(bytes([number % 256])) for number in range(2000)))
        await protocol.until_bytes(2000)
        assert protocol.data == bytes(number % 256 for number in range(2000))


async def test_records_of_the_largest_size(pair, side):
    async with secured(pair, side) as (transport, protocol, peer):
        sending = asyncio.ensure_future(peer.write(pattern(20 * 16384)))
        await protocol.until_bytes(20 * 16384)
        await sending
        assert protocol.data == pattern(20 * 16384)


async def test_the_sockets_bytes_are_the_connections(pair, side):
    """No byte beyond the records reaches the peer: plaintext never does."""
    async with secured(pair, side) as (transport, protocol, peer):
        transport.write(b"secret" * 1000)
        transport.close()
        wire = b""
        while len(wire) < 6000:
            wire += await peer.receive()
        assert b"secret" not in wire
        assert await peer.read_to_end() == b"secret" * 1000
        await peer.send(peer.close_notify())
        await protocol.until_event("lost")
        assert await read_to_end(peer.sock) == b""
