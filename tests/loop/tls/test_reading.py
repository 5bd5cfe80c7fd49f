"""Reading: pauses with plaintext in the engine, buffers of the protocol's own, changes of the protocol."""

import asyncio

import pytest

from penstock.loop import NATIVE, EventLoop

from ..wire import Recorder, pattern, settle
from .peer import is_asyncios, secured

LARGE = 3 << 20


class Pausing(Recorder):
    """Pauses at each piece that it receives."""

    def data_received(self, data):
        self.transport.pause_reading()
        super().data_received(data)


class Lending(asyncio.BufferedProtocol):
    """Receives into a view of one buffer, of a given size."""

    def __init__(self, size):
        self.view = memoryview(bytearray(size))
        self.inner = Recorder()

    def connection_made(self, transport):
        self.inner.connection_made(transport)

    def get_buffer(self, sizehint):
        return self.view

    def buffer_updated(self, nbytes):
        self.inner.data_received(bytes(self.view[:nbytes]))

    def eof_received(self):
        return self.inner.eof_received()

    def connection_lost(self, exc):
        self.inner.connection_lost(exc)


async def test_nothing_is_received_while_paused(pair, side):
    async with secured(pair, side) as (transport, protocol, peer):
        transport.pause_reading()
        assert not transport.is_reading()
        await peer.write(b"x")
        await settle(200)
        assert protocol.data == b""
        transport.resume_reading()
        assert transport.is_reading()
        await protocol.until_bytes(1)


async def test_pausing_and_resuming_twice_is_allowed(pair, side):
    async with secured(pair, side) as (transport, protocol, peer):
        transport.resume_reading()
        transport.pause_reading()
        transport.pause_reading()
        transport.resume_reading()
        transport.resume_reading()
        await peer.write(b"x")
        await protocol.until_bytes(1)


async def test_a_pause_inside_data_received_holds_back_what_is_decrypted(pair, side):
    """The rest is in the engine or in our memory, and no edge comes for it: resuming delivers it."""
    async with secured(pair, side, Pausing()) as (transport, protocol, peer):
        sending = asyncio.ensure_future(peer.write(pattern(LARGE)))
        received = 0
        while received < LARGE:
            await protocol.until_bytes(received + 1)
            received = len(protocol.data)
            await settle(5)
            assert len(protocol.data) == received
            transport.resume_reading()
        await sending
        assert protocol.data == pattern(LARGE)


async def test_a_pause_and_a_resume_in_one_callback_lose_nothing(pair, side):
    class Blinking(Recorder):
        def data_received(self, data):
            self.transport.pause_reading()
            super().data_received(data)
            self.transport.resume_reading()

    async with secured(pair, side, Blinking()) as (_, protocol, peer):
        await peer.write(pattern(LARGE))
        await protocol.until_bytes(LARGE)
        assert protocol.data == pattern(LARGE)


async def test_a_paused_reader_stops_its_peer(loop, pair, side):
    async with secured(pair, side) as (transport, protocol, peer):
        transport.pause_reading()
        sent, wire = 0, peer.records(bytes(1 << 20))
        sending = None
        while sent < 64 << 20:
            sending = asyncio.ensure_future(peer.send(wire))
            _, pending = await asyncio.wait([sending], timeout=0.3)
            if pending:
                break
            sent += 1 << 20
            wire = peer.records(bytes(1 << 20))
        assert sent < 64 << 20
        assert protocol.data == b""
        transport.resume_reading()
        await sending
        await protocol.until_bytes(sent + (1 << 20))


@pytest.mark.parametrize("size", [1, 7, 1000, 16384, 100_000])
async def test_a_protocol_with_a_buffer_receives_every_byte(pair, side, size):
    count = min(size * 300, 2_000_000)
    async with secured(pair, side, Lending(size)) as (_, protocol, peer):
        sending = asyncio.ensure_future(peer.write(pattern(count)))
        await protocol.inner.until_bytes(count)
        await sending
        assert protocol.inner.data == pattern(count)
        assert max(map(len, protocol.inner.chunks)) <= size


async def test_a_protocol_whose_buffer_is_a_bytearray_receives_every_byte(loop_factory, pair, side):
    """gh-156275: asyncio reads into a copy from the second record on."""
    if loop_factory is not EventLoop or not NATIVE:
        pytest.skip("asyncio loses data")
    protocol = Lending(50_000)
    protocol.view = bytearray(50_000)
    async with secured(pair, side, protocol) as (transport, protocol, peer):
        if is_asyncios(transport):
            pytest.skip("asyncio's TLS loses data")
        sending = asyncio.ensure_future(peer.write(pattern(500_000)))
        await protocol.inner.until_bytes(500_000)
        await sending
        assert protocol.inner.data == pattern(500_000)


async def test_a_pause_inside_buffer_updated_holds_back_the_rest(pair, side):
    class Pausing(Lending):
        def buffer_updated(self, nbytes):
            self.inner.transport.pause_reading()
            super().buffer_updated(nbytes)

    async with secured(pair, side, Pausing(1000)) as (transport, protocol, peer):
        await peer.write(pattern(10_000))
        received = 0
        while received < 10_000:
            await protocol.inner.until_bytes(received + 1)
            received = len(protocol.inner.data)
            await settle(5)
            assert len(protocol.inner.data) == received
            transport.resume_reading()
        assert protocol.inner.data == pattern(10_000)


async def test_protocols_of_both_kinds_take_turns(pair, side):
    async with secured(pair, side) as (transport, first, peer):
        current = first
        for number in range(6):
            await peer.write(b"%d" % number)
            await current.until_bytes(1)
            assert current.data == b"%d" % number
            following = Lending(10) if number % 2 == 0 else Recorder()
            transport.set_protocol(following)
            assert transport.get_protocol() is following
            current = getattr(following, "inner", following)
        await peer.send(peer.close_notify())
        await current.until_event("lost")
        assert current.events == ["eof", "lost"]
        assert "lost" not in first.events
        first.note("lost")


async def test_a_protocol_set_while_receiving_gets_the_next_bytes(pair, side):
    class Switching(Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.set_protocol(self.following)

    for following in (Recorder(), Lending(100)):
        protocol = Switching()
        protocol.following, recorder = following, getattr(following, "inner", following)
        async with secured(pair, side, protocol) as (_, _, peer):
            await peer.write(b"one")
            await protocol.until_bytes(3)
            await peer.write(b"two")
            await recorder.until_bytes(3)
            assert (protocol.data, recorder.data) == (b"one", b"two")
            peer.reset()
            await recorder.until_event("lost")
            protocol.note("lost")


async def test_a_protocol_with_a_buffer_gets_what_one_without_has_left(loop_factory, pair, side):
    if loop_factory is not EventLoop or not NATIVE:
        pytest.skip("asyncio may leave the rest until more data comes")

    class Handing(Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.set_protocol(heir)

    heir, data = Lending(1000), pattern(450_000)
    async with secured(pair, side, Handing()) as (transport, protocol, peer):
        transport.pause_reading()
        # more than is decrypted at once
        await peer.write(data)
        await asyncio.sleep(0.2)
        transport.resume_reading()
        await heir.inner.until(lambda: len(protocol.data) + len(heir.inner.data) == len(data))
        assert protocol.data + heir.inner.data == data
        assert protocol.events.count("data") == 1
        transport.set_protocol(protocol)


async def test_a_pause_survives_a_change_of_protocol(pair, side):
    async with secured(pair, side) as (transport, first, peer):
        transport.pause_reading()
        await peer.write(b"x")
        second = Recorder()
        transport.set_protocol(second)
        await settle(200)
        assert second.data == b""
        transport.resume_reading()
        await second.until_bytes(1)
        transport.abort()
        await second.until_event("lost")
        first.note("lost")


async def test_closing_while_paused_delivers_nothing_more(pair, side):
    async with secured(pair, side, ssl_shutdown_timeout=0.2) as (transport, protocol, peer):
        transport.pause_reading()
        await peer.write(b"unread")
        await settle(200)
        transport.close()
        await protocol.until_event("lost")
        assert protocol.data == b""


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_closing_inside_data_received_ends_it(pair, side, how):
    class Closing(Recorder):
        def data_received(self, data):
            super().data_received(data)
            getattr(self.transport, how)()

    async with secured(pair, side, Closing()) as (_, protocol, peer):
        await peer.write(b"x")
        await protocol.until_bytes(1)
        await peer.close()
        await protocol.until_event("lost")
        assert protocol.data == b"x"
        assert protocol.error is None
