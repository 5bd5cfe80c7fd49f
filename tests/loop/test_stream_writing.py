"""Writing transports: order, backpressure and watermarks, errors, and the bytes in the kernel."""

import asyncio
import socket

import pytest

from .wire import Recorder, pattern, read_exactly, read_to_end, settle, socket_pair, wired

SIZES = [0, 1, 1024, 65_536, 262_145, 1_000_003, 10_000_000]


@pytest.mark.parametrize("size", SIZES)
async def test_every_byte_is_written_in_its_order(family, size):
    async with wired(family=family) as (transport, _, peer):
        transport.write(pattern(size))
        transport.close()
        assert await read_to_end(peer) == pattern(size)


@pytest.mark.parametrize("convert", [bytes, bytearray, memoryview])
async def test_any_bytes_like_object_can_be_written(family, convert):
    async with wired(family=family) as (transport, _, peer):
        transport.write(convert(b"data"))
        assert await read_exactly(peer, 4) == b"data"


@pytest.mark.parametrize("thing", ["text", None, 42, [b"list"]])
async def test_what_is_not_bytes_like_is_refused(thing):
    async with wired() as (transport, protocol, _):
        with pytest.raises(TypeError, match="data argument must be"):
            transport.write(thing)
        assert protocol.events == ["made"]


async def test_a_small_write_goes_out_at_once(family):
    async with wired(family=family) as (transport, _, peer):
        transport.write(b"now")
        assert transport.get_write_buffer_size() == 0
        assert peer.recv(10) == b"now"


async def test_what_the_kernel_takes_is_in_the_kernel_when_write_returns(family):
    async with wired(family=family) as (transport, _, peer):
        for _ in range(3):
            transport.write(b"one ")
            transport.write(bytearray(b"two "))
            transport.writelines([b"three ", b"four"])
            assert peer.recv(99) == b"one two three four"
            await asyncio.sleep(0)


@pytest.mark.parametrize(
    "end", [lambda transport: transport.abort(), lambda transport: transport.get_extra_info("socket").shutdown(1)]
)
async def test_an_abrupt_end_loses_nothing_that_the_kernel_took(end):
    async with wired() as (transport, protocol, peer):
        transport.write(b"error: ")
        transport.write(b"bad request")
        end(transport)
        assert await read_to_end(peer) == b"error: bad request"


@pytest.mark.parametrize("exception", [SystemExit, KeyboardInterrupt])
def test_an_exception_out_of_the_loop_loses_nothing_written(loop, exception):
    ours, peer = socket_pair()

    async def leave():
        transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, ours)
        transport.write(b"one ")
        transport.write(b"two")
        raise exception

    with pytest.raises(exception):
        loop.run_until_complete(leave())
    assert peer.recv(99) == b"one two"
    peer.close()
    loop.run_until_complete(settle())  # the connection ends


async def test_many_small_writes_keep_their_order(family):
    async with wired(family=family) as (transport, _, peer):
        for number in range(4000):
            transport.write(number.to_bytes(4, "big"))
        transport.close()
        data = await read_to_end(peer)
        assert data == b"".join(number.to_bytes(4, "big") for number in range(4000))


async def test_small_writes_behind_a_large_one_keep_their_place(family):
    async with wired(family=family) as (transport, _, peer):
        transport.write(pattern(5_000_000))
        for number in range(5000):
            transport.write(number.to_bytes(4, "big"))
        transport.close()
        data = await read_to_end(peer)
        assert data[:5_000_000] == pattern(5_000_000)
        assert data[5_000_000:] == b"".join(number.to_bytes(4, "big") for number in range(5000))


async def test_writelines_writes_all_parts_in_order(family):
    async with wired(family=family) as (transport, _, peer):
        transport.writelines([b"one", bytearray(b"two"), memoryview(b"three")])
        transport.writelines([])
        transport.writelines([b"", b"four", b""])
        transport.writelines(part for part in (b"five", b"six"))
        assert await read_exactly(peer, 22) == b"onetwothreefourfivesix"


async def test_writelines_of_more_parts_than_one_system_call_takes(family):
    async with wired(family=family) as (transport, _, peer):
        parts = [number.to_bytes(4, "big") * 64 for number in range(5000)]
        transport.writelines(parts)
        transport.close()
        assert await read_to_end(peer) == b"".join(parts)


async def test_a_full_buffer_pauses_the_protocol_and_an_empty_one_resumes_it(family):
    async with wired(family=family) as (transport, protocol, peer):
        transport.write(pattern(10_000_000))
        assert protocol.events == ["made", "pause"]
        assert transport.get_write_buffer_size() > 0
        assert len(await read_exactly(peer, 10_000_000)) == 10_000_000
        await protocol.until_event("resume")
        assert protocol.events == ["made", "pause", "resume"]
        assert transport.get_write_buffer_size() == 0


async def test_the_protocol_is_paused_only_once_until_resumed(family):
    async with wired(family=family) as (transport, protocol, peer):
        for _ in range(10):
            transport.write(bytes(1_000_000))
        assert protocol.events.count("pause") == 1
        await read_exactly(peer, 10_000_000)
        await protocol.until_event("resume")
        assert protocol.events.count("resume") == 1


async def test_the_protocol_is_resumed_only_at_the_low_watermark(family):
    sizes = []

    class Sizes(Recorder):
        def resume_writing(self):
            sizes.append(self.transport.get_write_buffer_size())
            super().resume_writing()

    async with wired(Sizes(), family) as (transport, protocol, peer):
        transport.set_write_buffer_limits(high=2_000_000, low=500_000)
        transport.write(pattern(10_000_000))
        await read_exactly(peer, 10_000_000)
        await protocol.until_event("resume")
        assert len(sizes) == 1 and sizes[0] <= 500_000


async def test_the_write_buffer_limits_can_be_set_and_read():
    async with wired() as (transport, _, _):
        assert transport.get_write_buffer_limits() == (16 * 1024, 64 * 1024)
        transport.set_write_buffer_limits(high=1000, low=100)
        assert transport.get_write_buffer_limits() == (100, 1000)
        transport.set_write_buffer_limits(high=1000)
        assert transport.get_write_buffer_limits() == (250, 1000)
        transport.set_write_buffer_limits(low=100)
        assert transport.get_write_buffer_limits() == (100, 400)
        transport.set_write_buffer_limits(0)
        assert transport.get_write_buffer_limits() == (0, 0)
        transport.set_write_buffer_limits()
        assert transport.get_write_buffer_limits() == (16 * 1024, 64 * 1024)
        for high, low in ((100, 1000), (1000, -1)):
            with pytest.raises(ValueError):
                transport.set_write_buffer_limits(high=high, low=low)


async def test_the_write_buffer_limits_may_be_any_numbers():
    async with wired() as (transport, protocol, _):
        transport.set_write_buffer_limits(high=1e6)
        assert transport.get_write_buffer_limits() == (250_000.0, 1e6)
        for high, low in ((float("inf"), 10), (2**80, 2**70)):
            transport.set_write_buffer_limits(high=high, low=low)
            assert transport.get_write_buffer_limits() == (low, high)
            transport.write(bytes(10_000_000))
        assert protocol.events == ["made"]
        for high, low in ((float("nan"), 0), (float("inf"), None), ("much", 0)):
            with pytest.raises((ValueError, TypeError)):
                transport.set_write_buffer_limits(high=high, low=low)
        transport.set_write_buffer_limits(high=0.5, low=0)
        assert protocol.events == ["made", "pause"]


async def test_limits_lowered_below_what_is_buffered_pause_at_once():
    async with wired() as (transport, protocol, peer):
        transport.set_write_buffer_limits(high=100_000_000)
        transport.write(bytes(10_000_000))
        assert protocol.events == ["made"]
        transport.set_write_buffer_limits(high=1000)
        assert protocol.events == ["made", "pause"]
        await read_exactly(peer, 10_000_000)
        await protocol.until_event("resume")


async def test_writing_in_pause_and_resume_callbacks_is_allowed(family):
    class Writes(Recorder):
        def pause_writing(self):
            super().pause_writing()
            self.transport.write(b"P")

        def resume_writing(self):
            super().resume_writing()
            if self.events.count("resume") == 1:
                self.transport.write(b"R")
                self.transport.close()

    async with wired(Writes(), family) as (transport, _, peer):
        transport.write(bytes(6_000_000))
        data = await read_to_end(peer)
        assert data == bytes(6_000_000) + b"PR"


async def test_a_writer_paused_by_backpressure_goes_on_by_drain():
    received = asyncio.get_running_loop().create_future()

    async def serve(reader, writer):
        received.set_result(await reader.read(-1))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    for number in range(100):
        writer.write(bytes([number]) * 100_000)
        await writer.drain()
    writer.write_eof()
    data = await received
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()
    assert data == b"".join(bytes([number]) * 100_000 for number in range(100))


async def test_reading_and_writing_at_full_speed_at_once(loop, family):
    size = 5_000_000

    async with wired(family=family) as (transport, protocol, peer):
        transport.write(pattern(size))
        got, *_ = await asyncio.gather(
            read_exactly(peer, size), loop.sock_sendall(peer, pattern(size)), protocol.until_bytes(size)
        )
        assert got == protocol.data == pattern(size)


async def test_write_eof_sends_what_is_buffered_and_then_the_fin(family):
    async with wired(family=family) as (transport, protocol, peer):
        assert transport.can_write_eof() is True
        transport.write(pattern(3_000_000))
        transport.write_eof()
        transport.write_eof()
        assert await read_to_end(peer) == pattern(3_000_000)
        with pytest.raises(RuntimeError, match="write_eof"):
            transport.write(b"more")
        peer.send(b"still open this way")
        await protocol.until_bytes(19)
        assert not transport.is_closing()


@pytest.mark.parametrize("keep_open", [True, False, None])
async def test_what_eof_received_returns_decides_if_the_write_side_stays_open(family, keep_open):
    async with wired(Recorder(keep_open=keep_open), family) as (transport, protocol, peer):
        peer.shutdown(socket.SHUT_WR)
        await protocol.until_event("eof")
        await settle(5)
        assert transport.is_closing() is not bool(keep_open)
        if keep_open:
            transport.write(b"answer")
            transport.close()
            assert await read_to_end(peer) == b"answer"
        await protocol.until_event("lost")
        assert protocol.error is None


async def test_an_answer_written_in_eof_received_is_sent_before_the_close(family):
    class Answers(Recorder):
        def eof_received(self):
            self.transport.write(pattern(2_000_000))
            return super().eof_received()

    async with wired(Answers(), family) as (_, protocol, peer):
        peer.shutdown(socket.SHUT_WR)
        assert await read_to_end(peer) == pattern(2_000_000)
        await protocol.until_event("lost")
