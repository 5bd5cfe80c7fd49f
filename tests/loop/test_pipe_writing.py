"""Writing pipe transports, of FIFOs and stream sockets: as on asyncio's loop."""

import asyncio
import os
import socket

import pytest

from .piping import drain, fill, writing
from .wire import Recorder, pattern, settle


@pytest.fixture(params=["fifo", "socket"])
def kind(request):
    return request.param


async def test_a_write_pipe_writes_all_that_it_was_given(loop, kind):
    transport, protocol, reader = await writing(loop, kind=kind)
    assert isinstance(transport, asyncio.WriteTransport)
    assert transport.can_write_eof()
    shared = bytearray(b"c")
    transport.write(b"a")
    transport.write(memoryview(b"b"))
    transport.write(shared)
    shared[:] = b"-"
    transport.write(b"")
    transport.writelines([b"d", bytearray(b"e"), b"", memoryview(b"f")])
    transport.writelines([])
    transport.close()
    assert transport.is_closing()
    await protocol.until_event("lost")
    assert protocol.events == ["made", "lost"]
    assert reader.read() == b"abcdef"
    reader.close()


async def test_queued_bytes_are_written_before_the_close(loop, kind):
    transport, protocol, reader = await writing(loop, kind=kind)
    fill(transport)
    transport.writelines([b"x" * 10, b"y" * 70_000])
    transport.write_eof()
    transport.write_eof()
    transport.close()
    assert await drain(reader) == pattern(1 << 20) + b"x" * 10 + b"y" * 70_000
    await protocol.until_event("lost")
    assert (protocol.events, protocol.error) == (["made", "pause", "resume", "lost"], None)
    reader.close()


async def test_abort_loses_what_is_queued(loop, kind):
    transport, protocol, reader = await writing(loop, kind=kind)
    fill(transport)
    transport.abort()
    assert transport.get_write_buffer_size() == 0
    await protocol.until_event("lost")
    assert protocol.error is None
    assert len(reader.read()) < 1 << 20
    reader.close()


@pytest.mark.parametrize("queued", [False, True])
async def test_a_closed_reader_ends_the_write_pipe(loop, kind, queued):
    transport, protocol, reader = await writing(loop, kind=kind)
    if queued:
        fill(transport)
    reader.close()
    await protocol.until_event("lost")
    assert type(protocol.error) is (BrokenPipeError if queued else type(None))
    assert transport.is_closing()


async def test_a_reader_that_goes_during_the_close_loses_the_rest(loop):
    transport, protocol, reader = await writing(loop)
    fill(transport)
    transport.close()
    await settle(100)
    reader.close()
    await protocol.until_event("lost")
    assert type(protocol.error) is BrokenPipeError


async def test_a_write_after_the_reader_has_gone_is_a_broken_pipe(loop, problems):
    transport, protocol, reader = await writing(loop)
    reader.close()
    transport.write(b"too late")
    await protocol.until_event("lost")
    assert type(protocol.error) is BrokenPipeError
    assert not problems


async def test_late_writes_are_dropped_and_warned_of(loop, caplog):
    transport, protocol, reader = await writing(loop)
    transport.close()
    for _ in range(7):
        transport.write(b"x")
        transport.writelines([b"x"])
    await protocol.until_event("lost")
    assert "pipe closed by peer" in caplog.text
    assert reader.read() == b""
    reader.close()


async def test_a_peer_that_writes_to_a_write_pipes_socket_ends_it(loop):
    """asyncio takes anything to read for the end of the reader."""
    transport, protocol, reader = await writing(loop, kind="socket")
    with socket.socket(fileno=os.dup(reader.fileno())) as sock:
        sock.send(b"x")
        await protocol.until_event("lost")
    assert protocol.error is None
    reader.close()


async def test_watermarks_pause_and_an_empty_queue_resumes(loop, kind):
    transport, protocol, reader = await writing(loop, kind=kind)
    assert transport.get_write_buffer_limits() == (16384, 65536)
    transport.set_write_buffer_limits(high=100, low=10)
    assert transport.get_write_buffer_limits() == (10, 100)
    fill(transport)
    assert protocol.events == ["made", "pause"]
    reading_all = asyncio.ensure_future(drain(reader))
    await protocol.until_event("resume")
    assert transport.get_write_buffer_size() == 0
    with pytest.raises(ValueError, match=r"high \(1\) must be >= low \(2\) must be >= 0"):
        transport.set_write_buffer_limits(high=1, low=2)
    transport.close()
    await reading_all
    await protocol.until_event("lost")
    reader.close()


async def test_pause_writing_that_raises_is_reported(loop, problems):
    class Raising(Recorder):
        def pause_writing(self):
            raise ZeroDivisionError

    transport, protocol, reader = await writing(loop, Raising())
    fill(transport)
    assert [found["message"] for found in problems] == ["protocol.pause_writing() failed"]
    transport.abort()
    await protocol.until_event("lost")
    reader.close()


async def test_a_wrong_type_is_asyncios_error(loop):
    transport, protocol, reader = await writing(loop)
    with pytest.raises(AssertionError):
        transport.write("text")
    with pytest.raises(TypeError):
        transport.writelines([b"x", 7])
    transport.close()
    await protocol.until_event("lost")
    assert reader.read() == b""
    reader.close()


async def test_a_write_in_resume_writing_goes_before_the_close(loop):
    class Writing(Recorder):
        def resume_writing(self):
            super().resume_writing()
            self.transport.write(b"last")

    transport, protocol, reader = await writing(loop, Writing())
    fill(transport)
    reading_all = asyncio.ensure_future(drain(reader))
    await protocol.until_event("resume")
    transport.close()
    assert await reading_all == pattern(1 << 20) + b"last"
    await protocol.until_event("lost")
    reader.close()


async def test_bytes_written_in_connection_made_arrive(loop):
    class Writing(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.write(pattern(300_000))
            transport.close()

    _, protocol, reader = await writing(loop, Writing())
    assert await drain(reader) == pattern(300_000)
    await protocol.until_event("lost")
    reader.close()


async def test_a_pipe_that_was_made_blocking_can_be_read_by_a_thread(loop):
    transport, protocol, reader = await writing(loop)
    reading = loop.run_in_executor(None, reader.read)
    # as a process that shares it may
    os.set_blocking(transport.get_extra_info("pipe").fileno(), True)
    transport.write(pattern(1 << 20))
    transport.close()
    assert await reading == pattern(1 << 20)
    await protocol.until_event("lost")
    reader.close()
