"""Reading transports: sizes, pauses, ends of stream, odd messages. No byte is lost, late or duplicated."""

import array
import asyncio
import os
import socket

import pytest

from .wire import Recorder, pattern, read_exactly, settle, wired

SIZES = [1, 2, 1023, 1024, 16_384, 65_535, 65_536, 65_537, 262_144, 262_145, 1_000_003, 10_000_000]


@pytest.mark.parametrize("size", SIZES)
async def test_every_byte_arrives_in_its_order(loop, family, size):
    async with wired(family=family) as (_, protocol, peer):
        sent = pattern(size)
        await asyncio.gather(loop.sock_sendall(peer, sent), protocol.until_bytes(size))
        assert protocol.data == sent


@pytest.mark.parametrize("size", SIZES)
async def test_data_and_fin_together_give_all_data_and_then_the_end(loop, family, size):
    async with wired(family=family) as (_, protocol, peer):
        sent = pattern(size)
        await loop.sock_sendall(peer, sent)
        peer.shutdown(socket.SHUT_WR)
        await protocol.until_event("lost")
        assert protocol.data == sent
        assert protocol.events == ["made", "data", "eof", "lost"]
        assert protocol.error is None


async def test_data_and_fin_that_came_before_the_transport_are_not_missed(loop, family):
    from .wire import socket_pair

    ours, peer = socket_pair(family)
    peer.send(b"early")
    peer.close()
    _, protocol = await loop.connect_accepted_socket(Recorder, ours)
    await protocol.until_event("lost")
    assert protocol.data == b"early"
    assert protocol.events == ["made", "data", "eof", "lost"]


async def test_a_fin_long_after_the_data_is_seen(family):
    async with wired(family=family) as (_, protocol, peer):
        peer.send(b"data")
        await protocol.until_bytes(4)
        await settle(10)
        peer.shutdown(socket.SHUT_WR)
        await protocol.until_event("lost")
        assert protocol.events == ["made", "data", "eof", "lost"]


async def test_a_fin_sent_while_the_data_is_being_received_is_seen(family):
    class ClosesPeer(Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.peer.shutdown(socket.SHUT_WR)

    async with wired(ClosesPeer(), family) as (_, protocol, peer):
        protocol.peer = peer
        peer.send(b"data")
        await protocol.until_event("lost")
        assert protocol.events == ["made", "data", "eof", "lost"]


async def test_data_sent_while_data_is_being_received_is_not_missed(family):
    rounds = 200

    class AsksForMore(Recorder):
        def data_received(self, data):
            super().data_received(data)
            if len(self.data) < rounds:
                self.peer.send(b"x")

    async with wired(AsksForMore(), family) as (_, protocol, peer):
        protocol.peer = peer
        peer.send(b"x")
        await protocol.until_bytes(rounds)


async def test_an_empty_stream_ends_without_data(family):
    async with wired(family=family) as (_, protocol, peer):
        peer.shutdown(socket.SHUT_WR)
        await protocol.until_event("lost")
        assert protocol.events == ["made", "eof", "lost"]


async def test_data_that_comes_while_paused_is_delivered_after_resume(family):
    async with wired(family=family) as (transport, protocol, peer):
        transport.pause_reading()
        assert not transport.is_reading()
        peer.send(b"while paused")
        await settle(10)
        assert protocol.data == b""
        transport.resume_reading()
        assert transport.is_reading()
        await protocol.until_bytes(12)
        assert protocol.data == b"while paused"


async def test_a_fin_that_comes_while_paused_is_delivered_after_resume(family):
    async with wired(family=family) as (transport, protocol, peer):
        transport.pause_reading()
        peer.send(b"last words")
        peer.shutdown(socket.SHUT_WR)
        await settle(10)
        assert protocol.events == ["made"]
        transport.resume_reading()
        await protocol.until_event("lost")
        assert protocol.data == b"last words"
        assert protocol.events == ["made", "data", "eof", "lost"]


async def test_pausing_in_data_received_stops_delivery_at_once(loop, family):
    size = 4_000_000

    class PausesAlways(Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.pause_reading()

    async with wired(PausesAlways(), family) as (transport, protocol, peer):
        sending = asyncio.ensure_future(loop.sock_sendall(peer, pattern(size)))
        while len(protocol.data) < size:
            chunks = len(protocol.chunks)
            await protocol.until(lambda chunks=chunks: len(protocol.chunks) > chunks)
            await settle(5)
            assert len(protocol.chunks) == chunks + 1
            transport.resume_reading()
        await sending
        assert protocol.data == pattern(size)


async def test_pausing_before_the_first_byte_in_connection_made_holds_everything(family):
    class BornPaused(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.pause_reading()

    async with wired(BornPaused(), family) as (transport, protocol, peer):
        peer.send(b"data")
        await settle(10)
        assert protocol.data == b""
        transport.resume_reading()
        await protocol.until_bytes(4)


async def test_pausing_and_resuming_twice_is_harmless(family):
    async with wired(family=family) as (transport, protocol, peer):
        transport.pause_reading()
        transport.pause_reading()
        transport.resume_reading()
        transport.resume_reading()
        peer.send(b"data")
        await protocol.until_bytes(4)
        transport.pause_reading()
        transport.resume_reading()
        peer.send(b"more")
        await protocol.until_bytes(8)


async def test_resuming_in_the_turn_of_the_pause_loses_nothing(family):
    class Toggles(Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.pause_reading()
            asyncio.get_running_loop().call_soon(self.transport.resume_reading)

    async with wired(Toggles(), family) as (_, protocol, peer):
        for number in range(1, 50):
            peer.send(b"x" * number)
            await protocol.until_bytes(number * (number + 1) // 2)


async def test_one_firehose_does_not_starve_another_connection(loop, family):
    async with wired(family=family) as (_, firehose, loud), wired(family=family) as (_, quiet, peer):
        stop = asyncio.Event()

        async def blast():
            while not stop.is_set():
                await loop.sock_sendall(loud, bytes(1_000_000))

        blasting = asyncio.ensure_future(blast())
        await firehose.until_bytes(1_000_000)
        for number in range(1, 20):
            before = len(firehose.data)
            peer.send(b"x")
            await quiet.until_bytes(number)
            assert len(firehose.data) - before < 16_000_000
        stop.set()
        await blasting


async def test_a_firehose_does_not_starve_callbacks(loop, family):
    async with wired(family=family) as (_, protocol, peer):
        sending = asyncio.ensure_future(loop.sock_sendall(peer, bytes(8_000_000)))
        turns = 0
        while len(protocol.data) < 8_000_000:
            await asyncio.sleep(0)
            turns += 1
        await sending
        assert turns > 8


async def test_transports_are_not_starved_by_an_endless_chain_of_callbacks(loop, family):
    async with wired(family=family) as (_, protocol, peer):
        chained = True

        def chain():
            if chained:
                loop.call_soon(chain)

        chain()
        for number in range(1, 10):
            peer.send(b"x")
            await protocol.until_bytes(number)
        chained = False
        await settle()


async def test_urgent_data_does_not_stall_the_stream():
    async with wired() as (_, protocol, peer):
        for number in range(1, 20):
            peer.send(b"before")
            peer.send(b"!", socket.MSG_OOB)
            peer.send(b"after")
            await protocol.until_bytes(11 * number)
        peer.shutdown(socket.SHUT_WR)
        await protocol.until_event("lost")
        assert protocol.data == b"beforeafter" * 19


async def test_urgent_data_amid_much_ordinary_data_does_not_stall_the_stream(loop):
    block = 100_000

    async with wired() as (_, protocol, peer):
        for number in range(1, 11):
            await loop.sock_sendall(peer, bytes(block))
            peer.send(b"!", socket.MSG_OOB)
            await loop.sock_sendall(peer, bytes(block))
            await protocol.until_bytes(2 * block * number)


async def test_unix_messages_that_carry_descriptors_do_not_stall_the_stream():
    async with wired(family="unix") as (_, protocol, peer):
        with open(os.devnull, "rb") as file:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file.fileno()]))]
            for _ in range(20):
                peer.send(b"plain")
                peer.sendmsg([b"with"], rights)
                peer.sendmsg([b"twice"], rights)
                peer.send(b"again")
        await protocol.until_bytes(20 * 19)
        peer.shutdown(socket.SHUT_WR)
        await protocol.until_event("lost")
        assert protocol.data == b"plainwithtwiceagain" * 20


async def test_received_bytes_are_bytes_of_their_own(family):
    async with wired(family=family) as (_, protocol, peer):
        for number in range(20):
            peer.send(bytes([number]) * 100)
            await protocol.until_bytes(100 * (number + 1))
        assert all(type(chunk) is bytes for chunk in protocol.chunks)
        assert protocol.chunks == [bytes([number]) * 100 for number in range(20)]


async def test_ping_pong_keeps_the_pace_for_thousands_of_rounds(loop, family):
    class Echo(Recorder):
        def data_received(self, data):
            self.transport.write(data)

    async with wired(Echo(), family) as (_, _, peer):
        for number in range(2000):
            message = number.to_bytes(4, "big")
            peer.send(message)
            assert await read_exactly(peer, 4) == message
