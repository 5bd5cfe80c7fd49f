"""Reading pipe transports, of FIFOs and stream sockets: as on asyncio's loop."""

import asyncio
import contextlib
import contextvars
import fcntl
import os

import pytest

from penstock.loop import NATIVE, EventLoop

from .piping import pipe_files, reading
from .wire import Recorder, pattern, settle


@pytest.fixture(params=["fifo", "socket"])
def kind(request):
    return request.param


async def test_a_read_pipe_delivers_until_its_end(loop, kind):
    transport, protocol, writer = await reading(loop, kind=kind)
    assert isinstance(transport, asyncio.ReadTransport)
    assert transport.get_extra_info("pipe").fileno() >= 0
    assert transport.get_extra_info("no such", 7) == 7
    assert transport.get_protocol() is protocol
    writer.write(b"one")
    await protocol.until_bytes(3)
    assert transport.is_reading()
    writer.write(b"two")
    writer.close()
    await protocol.until_event("lost")
    assert protocol.events == ["made", "data", "eof", "lost"]
    assert (bytes(protocol.data), protocol.error) == (b"onetwo", None)
    assert transport.is_closing()
    assert transport.get_extra_info("pipe").closed


async def test_what_eof_received_returns_keeps_no_read_pipe_open(loop):
    _, protocol, writer = await reading(loop, Recorder(keep_open=True))
    writer.close()
    await protocol.until_event("lost")
    assert protocol.events == ["made", "eof", "lost"]


async def test_data_and_end_that_come_together_are_two_events(loop, kind):
    reader, writer = pipe_files(kind)
    writer.write(b"all")
    writer.close()
    _, protocol = await loop.connect_read_pipe(Recorder, reader)
    await protocol.until_event("lost")
    assert protocol.events == ["made", "data", "eof", "lost"]
    assert protocol.data == b"all"


@pytest.mark.parametrize("size", [1, 65_536, 262_144, 1_000_003])
async def test_every_byte_arrives_and_reads_are_bounded(loop, kind, size):
    transport, protocol, writer = await reading(loop, kind=kind)
    if kind == "fifo":
        with contextlib.suppress(OSError):
            fcntl.fcntl(writer.fileno(), fcntl.F_SETPIPE_SZ, 1 << 20)
    sending = loop.run_in_executor(None, lambda: (writer.write(pattern(size)), writer.close()))
    await protocol.until_event("lost")
    await sending
    assert protocol.data == pattern(size)[: len(protocol.data)]
    assert max(map(len, protocol.chunks)) <= 262_144


async def test_a_paused_read_pipe_keeps_its_data_and_its_end(loop, kind):
    transport, protocol, writer = await reading(loop, kind=kind)
    transport.pause_reading()
    transport.pause_reading()
    assert not transport.is_reading()
    writer.write(b"later")
    writer.close()
    await settle(200)
    assert protocol.events == ["made"]
    transport.resume_reading()
    transport.resume_reading()
    await protocol.until_event("lost")
    assert protocol.data == b"later"
    transport.resume_reading()
    transport.pause_reading()


async def test_a_protocol_that_pauses_gets_nothing_until_it_resumes(loop):
    class Pausing(Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.pause_reading()

    transport, protocol, writer = await reading(loop, Pausing())
    for _ in range(3):
        writer.write(b"x")
        seen = len(protocol.data)
        await protocol.until_bytes(seen + 1)
        writer.write(b"y")
        await settle(200)
        assert len(protocol.data) == seen + 1
        transport.resume_reading()
        await protocol.until_bytes(seen + 2)
        transport.resume_reading()
    transport.close()
    await protocol.until_event("lost")
    writer.close()


async def test_pausing_in_connection_made_holds_from_the_first_byte(loop):
    class Pausing(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.pause_reading()

    transport, protocol, writer = await reading(loop, Pausing())
    writer.write(b"early")
    await settle(200)
    assert protocol.data == b""
    transport.resume_reading()
    await protocol.until_bytes(5)
    transport.close()
    await protocol.until_event("lost")
    writer.close()


async def test_a_resumed_pipe_that_another_process_has_read_empty_waits(loop):
    """Its descriptor may even be blocking by then: a read would stop the loop."""
    transport, protocol, writer = await reading(loop)
    fd = transport.get_extra_info("pipe").fileno()
    transport.pause_reading()
    writer.write(b"stolen")
    await settle(200)
    assert os.read(fd, 100) == b"stolen"
    os.set_blocking(fd, True)
    transport.resume_reading()
    await settle(200)
    assert protocol.data == b""
    writer.write(b"ours")
    await protocol.until_bytes(4)
    assert protocol.data == b"ours"
    writer.close()
    await protocol.until_event("lost")


async def test_data_received_that_raises_is_reported_and_reading_goes_on(loop, problems):
    class Raising(Recorder):
        def data_received(self, data):
            super().data_received(data)
            raise ZeroDivisionError

    _, protocol, writer = await reading(loop, Raising())
    for count in (1, 2):
        writer.write(b"x")
        await protocol.until_bytes(count)
        await settle()
    writer.close()
    await protocol.until_event("lost")
    assert [type(found["exception"]) for found in problems] == [ZeroDivisionError] * 2
    assert all(found["message"].startswith("Exception in callback") for found in problems)
    assert protocol.events == ["made", "data", "eof", "lost"]


def test_a_keyboard_interrupt_in_data_received_leaves_the_loop_and_loses_nothing(loop):
    class Interrupting(Recorder):
        def data_received(self, data):
            super().data_received(data)
            if len(self.data) == 1:
                raise KeyboardInterrupt

    reader, writer = pipe_files()
    _, protocol = loop.run_until_complete(loop.connect_read_pipe(Interrupting, reader))
    writer.write(b"x")
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(protocol.until_bytes(2))
    writer.write(b"y")
    writer.close()
    loop.run_until_complete(protocol.until_event("lost"))
    assert protocol.data == b"xy"


async def test_closing_in_data_received_ends_the_pipe_with_data_left(loop):
    class Closing(Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.close()
            self.transport.close()

    _, protocol, writer = await reading(loop, Closing())
    writer.write(b"x" * 10)
    await protocol.until_event("lost")
    assert protocol.events == ["made", "data", "lost"]
    with pytest.raises(BrokenPipeError):
        writer.write(b"more")
    writer.close()


async def test_a_new_protocol_gets_the_next_data(loop):
    transport, first, writer = await reading(loop)
    second = Recorder()
    second.connection_made(transport)
    transport.set_protocol(second)
    writer.write(b"x")
    await second.until_bytes(1)
    assert (first.events, transport.get_protocol()) == (["made"], second)
    writer.close()
    await second.until_event("lost")


async def test_a_stream_reader_is_fed_and_pauses_its_pipe(loop, kind):
    rest, writer = pipe_files(kind)
    reader = asyncio.StreamReader(limit=1000)
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), rest)
    sending = loop.run_in_executor(None, lambda: (writer.write(pattern(100_000)), writer.close()))
    found = bytearray()
    while chunk := await reader.read(7000):
        found += chunk
    await sending
    assert found == pattern(100_000)[: len(found)]
    assert len(found) == 100_000 or kind == "fifo"
    transport.close()
    await settle()


async def test_callbacks_run_in_the_context_of_the_connect(loop):
    variable = contextvars.ContextVar("variable", default="none")

    class Seeing(Recorder):
        def data_received(self, data):
            seen.append(variable.get())
            super().data_received(data)

    seen = []
    variable.set("connecting")
    transport, protocol, writer = await reading(loop, Seeing())
    variable.set("later")
    writer.write(b"x")
    await protocol.until_bytes(1)
    assert seen == ["connecting"]
    transport.close()
    writer.close()
    await protocol.until_event("lost")


def test_a_pipe_that_was_made_blocking_and_read_empty_does_not_block(loop, run):
    # both ends of the event see one byte: as a process that shares the pipe would
    async def main():
        first, _, writer = await reading(loop)
        pipe = first.get_extra_info("pipe")
        second, _ = await loop.connect_read_pipe(Recorder, os.fdopen(os.dup(pipe.fileno()), "rb", 0))
        await settle()
        os.set_blocking(pipe.fileno(), True)
        writer.write(b"x")
        await settle(20)
        for transport in (first, second):
            transport.close()
        await settle()
        writer.close()

    if not (NATIVE and isinstance(loop, EventLoop)):
        pytest.skip("asyncio's own transport blocks")
    run(main())
