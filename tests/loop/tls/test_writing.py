"""Writing: sizes, kinds of buffers, lists, watermarks, both directions at once."""

import asyncio

import pytest

from ..wire import Recorder, pattern, settle
from .peer import secured

LARGE = 10 << 20
RECORD = 16384


@pytest.mark.parametrize("size", [0, 1, RECORD - 1, RECORD, RECORD + 1, 1 << 20, LARGE])
async def test_a_write_of_any_size_arrives(pair, side, version, size):
    pair[0].maximum_version = version
    async with secured(pair, side) as (transport, _, peer):
        transport.write(pattern(size))
        transport.write(b"end")
        assert await peer.read_exactly(size + 3) == pattern(size) + b"end"


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
async def test_any_kind_of_buffer_is_written(pair, side, kind):
    async with secured(pair, side) as (transport, _, peer):
        transport.write(kind(b"data"))
        transport.writelines([kind(b"more"), b"", kind(b"data")])
        assert await peer.read_exactly(12) == b"datamoredata"


async def test_a_buffer_that_changes_afterwards_is_written_as_it_was(pair, side):
    async with secured(pair, side) as (transport, _, peer):
        data = bytearray(b"before")
        transport.write(data)
        data[:] = b"after!"
        assert await peer.read_exactly(6) == b"before"


@pytest.mark.parametrize("value", ["text", None, 1, [b"x"]])
async def test_what_is_no_buffer_is_refused(pair, side, value):
    async with secured(pair, side) as (transport, _, peer):
        with pytest.raises(TypeError, match=f"data: expecting a bytes-like instance, got {type(value).__name__}"):
            transport.write(value)
        transport.write(b"x")
        assert await peer.read() == b"x"


@pytest.mark.parametrize("chunks", [[], [b""], [b"", b"a", b"", b"b", b""], [b"a"] * 3000])
async def test_lists_with_empty_chunks_are_written(pair, side, chunks):
    """gh-155888."""
    async with secured(pair, side) as (transport, _, peer):
        transport.writelines(chunks)
        transport.writelines(iter(chunks))
        transport.write(b"end")
        expected = b"".join(chunks) * 2 + b"end"
        assert await peer.read_exactly(len(expected)) == expected
        assert transport.get_write_buffer_size() == 0


async def test_an_empty_chunk_in_a_full_queue_is_passed_over(pair, side):
    async with secured(pair, side) as (transport, protocol, peer):
        transport.write(pattern(LARGE))
        transport.writelines([b"", b"a", b"", b"b"])
        transport.write(b"")
        transport.write(b"end")
        assert await peer.read_exactly(LARGE + 5) == pattern(LARGE) + b"abend"
        while transport.get_write_buffer_size():
            await asyncio.sleep(0)


async def test_many_small_writes_keep_their_order(pair, side):
    async with secured(pair, side) as (transport, _, peer):
        for number in range(5000):
            transport.write(b"%4d" % number)
        expected = b"".join(b"%4d" % number for number in range(5000))
        assert await peer.read_exactly(20_000) == expected


async def test_a_write_inside_connection_made_is_the_first(pair, side):
    class Greeting(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.write(b"hello ")

    async with secured(pair, side, Greeting()) as (transport, _, peer):
        transport.write(b"there")
        assert await peer.read_exactly(11) == b"hello there"


async def test_the_watermarks(pair, side):
    async with secured(pair, side) as (transport, _, _):
        assert transport.get_write_buffer_limits() == (131_072, 524_288)
        for given, expected in [
            ({"high": 1000}, (250, 1000)),
            ({"low": 100}, (100, 400)),
            ({"high": 0}, (0, 0)),
            ({"high": 5, "low": 5}, (5, 5)),
        ]:
            transport.set_write_buffer_limits(**given)
            assert transport.get_write_buffer_limits() == expected
        for given in ({"high": 1, "low": 2}, {"high": -1}, {"low": -1}):
            with pytest.raises(ValueError, match=r"must be >= low|must be >= 0"):
                transport.set_write_buffer_limits(**given)


async def test_a_full_queue_pauses_and_an_empty_one_resumes(pair, side):
    async with secured(pair, side) as (transport, protocol, peer):
        transport.set_write_buffer_limits(high=100_000, low=1000)
        written = 0
        while "pause" not in protocol.events:
            transport.write(bytes(1 << 20))
            written += 1 << 20
            assert written < 64 << 20
        assert transport.get_write_buffer_size() > 100_000
        await settle(20)
        assert protocol.events == ["made", "pause"]
        await peer.read_exactly(written)
        await protocol.until_event("resume")
        assert transport.get_write_buffer_size() <= 1000
        assert protocol.events == ["made", "pause", "resume"]


async def test_writing_more_while_paused_pauses_once(pair, side):
    async with secured(pair, side) as (transport, protocol, peer):
        for _ in range(3):
            transport.write(bytes(LARGE // 2))
        assert protocol.events == ["made", "pause"]
        await peer.read_exactly(3 * (LARGE // 2))
        await protocol.until_event("resume")
        assert protocol.events == ["made", "pause", "resume"]


async def test_raised_limits_resume_at_once(pair, side):
    async with secured(pair, side) as (transport, protocol, peer):
        for _ in range(2):
            transport.write(bytes(1 << 22))
        assert protocol.events == ["made", "pause"]
        transport.set_write_buffer_limits(high=1 << 30, low=1 << 29)
        assert protocol.events == ["made", "pause", "resume"]


async def test_writes_inside_resume_writing_arrive(pair, side):
    class Refilling(Recorder):
        def resume_writing(self):
            super().resume_writing()
            self.transport.write(b"end")

    async with secured(pair, side, Refilling()) as (transport, protocol, peer):
        for _ in range(2):
            transport.write(pattern(LARGE))
        assert await peer.read_exactly(2 * LARGE + 3) == pattern(LARGE) * 2 + b"end"


async def test_both_directions_at_once(pair, side):
    async with secured(pair, side) as (transport, protocol, peer):
        data = pattern(LARGE)
        transport.write(data)

        async def send():
            for start in range(0, LARGE, 1 << 18):
                await peer.write(data[start : start + (1 << 18)])

        assert (await asyncio.gather(peer.read_exactly(LARGE), send()))[0] == data
        await protocol.until_bytes(LARGE)
        assert protocol.data == data


async def test_an_echo_of_everything(pair, side):
    class Echo(Recorder):
        def data_received(self, data):
            self.transport.write(data)

    async with secured(pair, side, Echo()) as (_, _, peer):
        sending = asyncio.ensure_future(peer.write(pattern(1 << 20)))
        assert await peer.read_exactly(1 << 20) == pattern(1 << 20)
        await sending


async def test_writes_go_on_while_reading_is_paused(pair, side):
    async with secured(pair, side) as (transport, protocol, peer):
        transport.pause_reading()
        await peer.write(b"unread")
        transport.write(pattern(LARGE))
        assert await peer.read_exactly(LARGE) == pattern(LARGE)
        transport.resume_reading()
        await protocol.until_bytes(6)
