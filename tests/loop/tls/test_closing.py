"""The end of a connection, as either side brings it about: close_notify, lost or late, resets, aborts, timeouts."""

import asyncio
import logging
import socket
import ssl

import pytest

from penstock.loop import NATIVE, EventLoop

from ..wire import Recorder, pattern, settle, socket_pair
from .peer import connect, secured

LARGE = 10 << 20


def fill(transport, protocol):
    """Write until the protocol is paused: asyncio's first write goes to the transport below, whatever its size."""
    for _ in range(2):
        transport.write(bytes(LARGE))
    assert "pause" in protocol.events


async def test_close_waits_for_the_peers_close_notify(pair, side, version):
    pair[0].maximum_version = version
    async with secured(pair, side) as (transport, protocol, peer):
        transport.write(b"last")
        transport.close()
        assert transport.is_closing()
        assert await peer.read_to_end() == b"last"
        assert protocol.events == ["made"]
        await peer.send(peer.close_notify())
        await protocol.until_event("lost")
        assert (protocol.events, protocol.error) == (["made", "eof", "lost"], None)
        assert await asyncio.get_running_loop().sock_recv(peer.sock, 1) == b""


async def test_everything_written_precedes_close_notify(pair, side):
    async with secured(pair, side) as (transport, protocol, peer):
        transport.write(pattern(LARGE))
        transport.close()
        transport.write(b"too late")
        assert await peer.read_to_end() == pattern(LARGE)
        await peer.close()
        await protocol.until_event("lost")
        assert protocol.error is None


async def test_the_peers_close_notify_closes(pair, side):
    async with secured(pair, side) as (transport, protocol, peer):
        await peer.send(peer.records(b"last") + peer.close_notify())
        await protocol.until_event("lost")
        assert (protocol.events, protocol.data, protocol.error) == (["made", "data", "eof", "lost"], b"last", None)
        await peer.call(peer.tls.unwrap)  # which needs our close_notify


async def test_what_eof_received_writes_is_ignored_after_close_notify(pair, side):
    """TLS has no half-close here: asyncio closes at once, whatever `eof_received` returns."""

    class Answering(Recorder):
        def eof_received(self):
            self.transport.write(b"answer")
            return super().eof_received()

    async with secured(pair, side, Answering(keep_open=True)) as (_, protocol, peer):
        await peer.send(peer.close_notify())
        await protocol.until_event("lost")
        assert (protocol.events, protocol.error) == (["made", "eof", "lost"], None)


async def test_keeping_open_after_eof_is_warned_about(pair, side, caplog):
    async with secured(pair, side, Recorder(keep_open=True)) as (_, protocol, peer):
        with caplog.at_level(logging.WARNING, "asyncio"):
            await peer.send(peer.close_notify())
            await protocol.until_event("lost")
    assert "returning true from eof_received() has no effect when using ssl" in caplog.text


@pytest.mark.parametrize("data", [b"", b"last"])
async def test_an_end_without_close_notify_is_an_end(pair, side, version, problems, data):
    pair[0].maximum_version = version
    async with secured(pair, side) as (transport, protocol, peer):
        await peer.send(peer.records(data) if data else b"")
        peer.sock.shutdown(socket.SHUT_WR)
        await protocol.until_event("lost")
        assert protocol.data == data
        assert (protocol.events, protocol.error) == (["made", *["data"] * bool(data), "eof", "lost"], None)
    assert problems == []


async def test_an_end_inside_a_record_is_an_end(pair, side, problems):
    async with secured(pair, side) as (_, protocol, peer):
        await peer.send(peer.records(b"whole") + peer.records(b"cut off")[:-3])
        peer.sock.shutdown(socket.SHUT_WR)
        await protocol.until_event("lost")
        assert (protocol.events, protocol.data, protocol.error) == (["made", "data", "eof", "lost"], b"whole", None)
    assert problems == []


async def test_an_end_while_reading_is_paused_waits_for_resume(pair, side):
    async with secured(pair, side) as (transport, protocol, peer):
        transport.pause_reading()
        await peer.send(peer.records(b"last") + peer.close_notify())
        peer.sock.shutdown(socket.SHUT_WR)
        await settle(200)
        assert protocol.events == ["made"]
        transport.resume_reading()
        await protocol.until_event("lost")
        assert (protocol.events, protocol.data, protocol.error) == (["made", "data", "eof", "lost"], b"last", None)


async def test_data_after_close_notify_is_ignored(pair, side, problems):
    async with secured(pair, side) as (_, protocol, peer):
        late = peer.records(b"late")
        await peer.send(peer.close_notify() + late)
        await protocol.until_event("lost")
        assert protocol.data == b""
        assert [event for event in protocol.events if event != "eof"] == ["made", "lost"]
    assert problems == []


async def test_data_that_comes_after_close_is_not_received(pair, side):
    async with secured(pair, side) as (transport, protocol, peer):
        transport.close()
        assert await peer.read_to_end() == b""
        await peer.send(peer.close_notify())
        await protocol.until_event("lost")
        assert protocol.data == b""
        assert protocol.events == ["made", "eof", "lost"]


@pytest.mark.parametrize("when", ["idle", "after data", "closing"])
async def test_a_reset_is_told(pair, side, problems, when):
    async with secured(pair, side) as (transport, protocol, peer):
        if when == "after data":
            await peer.write(b"x")
            await protocol.until_bytes(1)
        elif when == "closing":
            transport.close()
        peer.reset()
        await protocol.until_event("lost")
        assert isinstance(protocol.error, ConnectionResetError)
        assert protocol.events.count("lost") == 1
    assert problems == []


async def test_a_reset_ends_a_full_queue(pair, side, problems):
    async with secured(pair, side) as (transport, protocol, peer):
        fill(transport, protocol)
        peer.reset()
        await protocol.until_event("lost")
        assert isinstance(protocol.error, (ConnectionResetError, BrokenPipeError))
        assert protocol.events[-1] == "lost"
        assert transport.get_write_buffer_size() == 0
    assert problems == []


async def test_a_peer_that_does_not_answer_close_notify_times_out(pair, side, problems):
    async with secured(pair, side, ssl_shutdown_timeout=0.05) as (transport, protocol, peer):
        transport.close()
        await protocol.until_event("lost")
        assert type(protocol.error) is TimeoutError
        assert str(protocol.error) == "SSL shutdown timed out"
    assert problems == []


async def test_a_peer_that_reads_nothing_times_out(pair, side):
    async with secured(pair, side, ssl_shutdown_timeout=0.05) as (transport, protocol, peer):
        transport.write(bytes(LARGE))
        transport.close()
        await protocol.until_event("lost")
        assert type(protocol.error) is TimeoutError
        assert transport.get_write_buffer_size() == 0


async def test_a_peer_that_only_ends_answers_close_notify(pair, side):
    async with secured(pair, side) as (transport, protocol, peer):
        transport.close()
        assert await peer.read_to_end() == b""
        peer.sock.shutdown(socket.SHUT_WR)
        await protocol.until_event("lost")
        assert protocol.error is None


@pytest.mark.parametrize("state", ["idle", "writing", "closing", "paused", "ended", "lost"])
async def test_abort_in_each_state(pair, side, problems, state):
    async with secured(pair, side) as (transport, protocol, peer):
        if state == "writing":
            transport.write(bytes(LARGE))
        elif state == "closing":
            transport.close()
        elif state == "paused":
            transport.pause_reading()
            await peer.write(b"unread")
        elif state == "ended":
            await peer.send(peer.close_notify())
            await protocol.until_event("eof")
        elif state == "lost":
            transport.abort()
            await protocol.until_event("lost")
        transport.abort()
        transport.abort()
        assert transport.is_closing()
        await protocol.until_event("lost")
        assert protocol.error is None
        assert protocol.events.count("lost") == 1
        assert transport.get_write_buffer_size() == 0
    assert problems == []


async def test_abort_inside_connection_made(pair, side, problems):
    class Aborting(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.abort()

    async with secured(pair, side, Aborting()) as (transport, protocol, peer):
        await protocol.until_event("lost")
        assert protocol.events == ["made", "lost"]
        assert transport.is_closing()
    assert problems == []


async def test_close_inside_connection_made(pair, side, problems):
    class Closing(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.write(b"bye")
            transport.close()

    async with secured(pair, side, Closing()) as (_, protocol, peer):
        assert await peer.read_to_end() == b"bye"
        await peer.close()
        await protocol.until_event("lost")
        assert protocol.error is None
    assert problems == []


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_a_transport_after_its_end(pair, side, how):
    async with secured(pair, side) as (transport, protocol, peer):
        ssl_object = transport.get_extra_info("ssl_object")
        getattr(transport, how)()
        await peer.close()
        await protocol.until_event("lost")
        assert transport.is_closing()
        assert transport.get_extra_info("ssl_object") is ssl_object
        assert transport.get_extra_info("cipher") is not None
        assert transport.get_extra_info("nothing", 1) == 1
        assert transport.get_write_buffer_size() == 0
        transport.write(b"ignored")
        transport.writelines([b"ignored"])
        transport.close()
        transport.abort()
        await settle()
        assert protocol.events.count("lost") == 1


async def test_writes_after_the_end_are_warned_about(pair, side, caplog):
    async with secured(pair, side) as (transport, protocol, _):
        transport.abort()
        await protocol.until_event("lost")
        with caplog.at_level(logging.WARNING, "asyncio"):
            for _ in range(5):
                transport.write(b"x")
        assert "SSL connection is closed" in caplog.text


@pytest.mark.parametrize("data", [b"", b"in flight"])
async def test_both_sides_close_at_once(loop, pair, problems, data):
    """Data that comes after our close_notify is an error, as with asyncio."""
    ends = Recorder(), Recorder()
    ours, theirs = socket_pair()
    await asyncio.gather(
        connect(ours, pair, "server", ends[0]),
        connect(theirs, pair, "client", ends[1]),
    )
    ends[0].transport.write(data)
    for end in ends:
        end.transport.close()
    for end in ends:
        await end.until_event("lost")
    assert [type(end.error) for end in ends] == [type(None), ssl.SSLError if data else type(None)]
    assert not data or ends[1].error.reason == "APPLICATION_DATA_AFTER_CLOSE_NOTIFY"
    assert problems == []


async def test_closing_in_resume_writing_loses_the_connection_once(pair, side, problems):
    """gh-156512."""

    class Closing(Recorder):
        def resume_writing(self):
            super().resume_writing()
            self.transport.close()

    async with secured(pair, side, Closing()) as (transport, protocol, peer):
        fill(transport, protocol)
        assert len(await peer.read_to_end()) == 2 * LARGE
        await peer.close()
        await protocol.until_event("lost")
        await settle(20)
        assert protocol.events.count("lost") == 1
    assert problems == []


async def test_aborting_in_resume_writing_loses_the_connection_once(loop_factory, pair, side, problems):
    class Aborting(Recorder):
        def resume_writing(self):
            super().resume_writing()
            self.transport.abort()

    async with secured(pair, side, Aborting()) as (transport, protocol, peer):
        fill(transport, protocol)
        with pytest.raises((ConnectionResetError, ssl.SSLEOFError)):
            while await peer.read():
                pass
        await protocol.until_event("lost")
        await settle(20)
        assert protocol.events.count("lost") == 1
    # asyncio's transport schedules its end twice, and the second one raises
    assert problems == [] or not (NATIVE and loop_factory is EventLoop)
