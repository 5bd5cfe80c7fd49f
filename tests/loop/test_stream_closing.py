"""How a connection ends: close, abort, reset; what a transport says of itself before and after."""

import asyncio
import gc
import logging
import os
import socket
import struct
import sys
import unittest.mock
import warnings
import weakref

import pytest

from .wire import Recorder, pattern, read_to_end, settle, socket_pair, wired


def reset(sock):
    """Close with a RST instead of a FIN."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


async def test_close_calls_connection_lost_once_and_later(family):
    async with wired(family=family) as (transport, protocol, _):
        assert not transport.is_closing()
        transport.close()
        transport.close()
        assert transport.is_closing()
        assert protocol.events == ["made"]
        await protocol.until_event("lost")
        await settle()
        assert protocol.events == ["made", "lost"]
        assert protocol.error is None


async def test_close_sends_what_is_buffered_first(family):
    async with wired(family=family) as (transport, protocol, peer):
        transport.write(pattern(5_000_000))
        transport.close()
        assert await read_to_end(peer) == pattern(5_000_000)
        await protocol.until_event("lost")
        assert protocol.error is None


async def test_close_stops_reading_at_once(family):
    async with wired(family=family) as (transport, protocol, peer):
        peer.send(b"late")
        transport.close()
        await protocol.until_event("lost")
        assert protocol.data == b""
        assert not transport.is_reading()


async def test_closing_in_data_received_stops_delivery(loop, family):
    class ClosesAtOnce(Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.close()

    async with wired(ClosesAtOnce(), family) as (_, protocol, peer):
        peer.setblocking(False)
        try:
            while True:
                peer.send(bytes(100_000))
        except BlockingIOError:
            pass
        await protocol.until_event("lost")
        assert len(protocol.chunks) == 1


async def test_closing_in_connection_made_is_allowed(family):
    class NeverMind(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.write(b"bye")
            transport.close()

    async with wired(NeverMind(), family) as (_, protocol, peer):
        await protocol.until_event("lost")
        assert await read_to_end(peer) == b"bye"


async def test_abort_drops_what_is_buffered(family):
    async with wired(family=family) as (transport, protocol, peer):
        transport.write(bytes(20_000_000))
        transport.abort()
        assert transport.is_closing()
        await protocol.until_event("lost")
        assert protocol.error is None
        assert len(await read_to_end(peer)) < 20_000_000


async def test_abort_after_close_ends_a_close_that_waits_for_the_peer(family):
    async with wired(family=family) as (transport, protocol, _):
        transport.write(bytes(20_000_000))
        transport.close()
        await settle()
        assert "lost" not in protocol.events
        transport.abort()
        await protocol.until_event("lost")


async def test_a_reset_by_the_peer_is_reported():
    async with wired() as (_, protocol, peer):
        reset(peer)
        await protocol.until_event("lost")
        assert isinstance(protocol.error, ConnectionResetError)


async def test_a_reset_while_writing_is_reported():
    async with wired() as (transport, protocol, peer):
        transport.write(bytes(10_000_000))
        reset(peer)
        await protocol.until_event("lost")
        assert isinstance(protocol.error, ConnectionError)


async def test_a_reset_while_paused_does_not_spin_or_hang():
    async with wired() as (transport, protocol, peer):
        transport.pause_reading()
        reset(peer)
        await settle(10)
        if "lost" not in protocol.events:
            transport.resume_reading()
        await protocol.until_event("lost")


async def test_writing_to_a_peer_that_is_gone_ends_in_connection_lost(family):
    async with wired(Recorder(keep_open=True), family) as (transport, protocol, peer):
        peer.close()
        await protocol.until_event("eof")
        while not transport.is_closing():
            transport.write(b"anyone?")
            await asyncio.sleep(0)
        await protocol.until_event("lost")
        assert isinstance(protocol.error, ConnectionError)


def test_writing_after_the_connection_was_lost_is_warned_of(run, caplog):
    async def main():
        async with wired() as (transport, protocol, _):
            transport.abort()
            await protocol.until_event("lost")
            with caplog.at_level(logging.WARNING, "asyncio"):
                for _ in range(10):
                    transport.write(b"too late")

    run(main())
    assert "socket.send() raised exception" in caplog.text


async def test_a_write_after_close_still_goes_out_or_is_dropped_but_never_raises(family):
    async with wired(family=family) as (transport, protocol, _):
        transport.close()
        transport.write(b"after close")
        await protocol.until_event("lost")
        transport.write(b"after lost")


async def test_the_socket_is_closed_after_connection_lost(family):
    ours, peer = socket_pair(family)
    number = ours.fileno()
    transport, protocol = await asyncio.get_running_loop().connect_accepted_socket(Recorder, ours)
    transport.close()
    await protocol.until_event("lost")
    await settle()
    assert ours.fileno() == -1
    with pytest.raises(OSError):
        os.fstat(number)
    peer.close()


async def test_a_transport_is_an_asyncio_transport(family):
    async with wired(family=family) as (transport, _, _):
        assert isinstance(transport, asyncio.Transport)
        assert isinstance(transport, asyncio.WriteTransport) and isinstance(transport, asyncio.ReadTransport)


async def test_the_repr_tells_the_state(family):
    async with wired(family=family) as (transport, protocol, _):
        number = transport.get_extra_info("socket").fileno()
        assert f"fd={number}" in repr(transport)
        assert "closed" not in repr(transport) and "closing" not in repr(transport)
        transport.close()
        assert "clos" in repr(transport)
        await protocol.until_event("lost")
        await settle()
        assert "closed" in repr(transport)


async def test_extra_info_tells_of_the_socket():
    async with wired() as (transport, _, peer):
        assert transport.get_extra_info("peername") == peer.getsockname()
        assert transport.get_extra_info("sockname") == peer.getpeername()
        assert transport.get_extra_info("nothing") is None
        assert transport.get_extra_info("nothing", "default") == "default"
        sock = transport.get_extra_info("socket")
        assert isinstance(sock, asyncio.trsock.TransportSocket)
        assert sock.family == socket.AF_INET and sock.getsockname() == peer.getpeername()
        assert not hasattr(sock, "recv")


async def test_extra_info_outlives_the_connection():
    async with wired() as (transport, protocol, peer):
        address = peer.getsockname()
        transport.abort()
        await protocol.until_event("lost")
        await settle()
        assert transport.get_extra_info("peername") == address


def test_an_unclosed_transport_warns_when_it_is_collected(loop, turn):
    ours, peer = socket_pair()
    transport, _ = loop.run_until_complete(loop.connect_accepted_socket(asyncio.Protocol, ours))
    loop.close()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del transport, ours
        gc.collect()
    peer.close()
    assert any("unclosed transport" in str(warning.message) for warning in caught)


def test_an_unclosed_transport_gives_its_descriptor_back_where_warnings_are_errors(loop, monkeypatch):
    ours, peer = socket_pair()
    transport, _ = loop.run_until_complete(loop.connect_accepted_socket(asyncio.Protocol, ours))
    loop.close()
    raised = []
    monkeypatch.setattr(sys, "unraisablehook", raised.append)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del transport, ours
        gc.collect()
        monkeypatch.undo()
    peer.setblocking(True)
    assert peer.recv(1) == b""
    assert raised
    peer.close()


async def test_attributes_may_be_set_on_a_transport():
    async with wired() as (transport, _, peer):
        transport.note = "mine"
        with unittest.mock.patch.object(transport, "write") as write:
            transport.write(b"never sent")
        transport.write(b"sent")
        write.assert_called_once_with(b"never sent")
        assert (transport.note, peer.recv(99)) == ("mine", b"sent")


def test_a_transport_and_its_protocol_are_collected_after_the_end(run):
    async def main():
        ours, peer = socket_pair()
        transport, protocol = await asyncio.get_running_loop().connect_accepted_socket(Recorder, ours)
        transport.close()
        await protocol.until_event("lost")
        await settle()
        peer.close()
        return weakref.ref(protocol)

    reference = run(main())
    gc.collect()
    assert reference() is None


async def test_is_reading_follows_pause_resume_and_close():
    async with wired() as (transport, _, _):
        assert transport.is_reading()
        transport.pause_reading()
        assert not transport.is_reading()
        transport.resume_reading()
        assert transport.is_reading()
        transport.close()
        assert not transport.is_reading()
