"""Which files pipe transports take, and what becomes of them: natively or by asyncio's code, as on asyncio's loop."""

import asyncio
import contextlib
import fcntl
import gc
import importlib
import logging
import os
import pty
import socket
import tty
import warnings

import pytest

from penstock.loop import NATIVE, EventLoop
from tests.support.loops import TIMEOUT_S

from .piping import drain, fill, pipe_files, reading, writing
from .wire import Recorder, pattern, settle


def test_the_pipe_object_owns_the_descriptor(loop, run):
    async def main():
        transport, protocol, writer = await reading(loop)
        pipe = transport.get_extra_info("pipe")
        duplicate = os.dup(pipe.fileno())
        transport.close()
        assert not pipe.closed
        await protocol.until_event("lost")
        assert pipe.closed
        # the duplicate lives on, and its traffic is nothing to the loop
        writer.write(b"x")
        await settle(100)
        assert os.read(duplicate, 10) == b"x"
        os.close(duplicate)
        writer.close()

    run(main())


async def test_connection_lost_that_raises_closes_the_pipe_all_the_same(loop, problems):
    class Raising(Recorder):
        def connection_lost(self, exc):
            super().connection_lost(exc)
            raise ZeroDivisionError

    transport, protocol, reader = await writing(loop, Raising())
    fill(transport)
    transport.close()
    await drain(reader)
    await protocol.until_event("lost")
    await settle()
    assert transport.get_extra_info("pipe").closed
    assert [type(found["exception"]) for found in problems] == [ZeroDivisionError]
    reader.close()


def test_an_unclosed_pipe_transport_warns_and_closes(loop_factory):
    loop = loop_factory()
    reader, writer = pipe_files()
    transport, protocol = loop.run_until_complete(loop.connect_read_pipe(Recorder, reader))
    assert repr(transport).endswith("polling>")
    transport.pause_reading()
    assert repr(transport).endswith("idle>")
    protocol.transport = None
    loop.close()
    assert "open" in repr(transport)
    with pytest.warns(ResourceWarning, match="unclosed transport"):
        del transport, protocol
        gc.collect()
    assert reader.closed
    writer.close()


def test_transports_name_their_state(loop, run):
    async def main():
        transport, protocol, reader = await writing(loop)
        fd = transport.get_extra_info("pipe").fileno()
        assert f"fd={fd} idle bufsize=0>" in repr(transport)
        fill(transport)
        assert f"fd={fd} polling bufsize={transport.get_write_buffer_size()}>" in repr(transport)
        transport.abort()
        assert "closing" in repr(transport)
        await protocol.until_event("lost")
        assert "closed" in repr(transport)
        reader.close()

    run(main())


async def test_a_regular_file_is_refused(loop, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"data")
    with path.open("rb") as file, pytest.raises(ValueError, match="Pipe transport is for pipes/sockets only"):
        await loop.connect_read_pipe(Recorder, file)
    with path.open("wb") as file, pytest.raises(ValueError, match="Pipe transport is only for"):
        await loop.connect_write_pipe(Recorder, file)


async def test_dev_null_cannot_be_watched_and_harms_nothing(loop, problems):
    transport, protocol = await loop.connect_read_pipe(Recorder, open("/dev/null", "rb", 0))
    await settle()
    assert [type(found["exception"]) for found in problems] == [PermissionError]
    transport.close()
    await protocol.until_event("lost")
    assert protocol.events == ["made", "lost"]


async def test_dev_null_takes_everything(loop):
    transport, protocol = await loop.connect_write_pipe(Recorder, open("/dev/null", "wb", 0))
    transport.write(bytes(1 << 20))
    assert transport.get_write_buffer_size() == 0
    transport.close()
    await protocol.until_event("lost")


async def test_dev_zero_is_as_dev_null(loop, problems):
    transport, protocol = await loop.connect_read_pipe(Recorder, open("/dev/zero", "rb", 0))
    await settle()
    assert [type(found["exception"]) for found in problems] == [PermissionError]
    transport.close()
    await protocol.until_event("lost")


async def test_a_terminal_echoes_on_one_descriptor_for_both_ways(loop):
    master, slave = pty.openpty()
    reader, receiver = await loop.connect_read_pipe(Recorder, os.fdopen(master, "rb", 0))
    writer, sender = await loop.connect_write_pipe(Recorder, os.fdopen(master, "wb", 0, closefd=False))
    writer.write(b"line\n")
    await receiver.until_bytes(6)
    assert receiver.data == b"line\r\n"
    assert os.read(slave, 100) == b"line\n"
    os.close(slave)
    await receiver.until_event("lost")
    # the master of a terminal without a slave reads EIO, which is no message to the exception handler
    assert (receiver.events, type(receiver.error)) == (["made", "data", "lost"], OSError)
    writer.abort()
    await sender.until_event("lost")
    assert reader.is_closing()


async def test_a_raw_terminal_carries_every_byte(loop):
    master, slave = pty.openpty()
    tty.setraw(slave)
    _, receiver = await loop.connect_read_pipe(Recorder, os.fdopen(master, "rb", 0))
    writer, sender = await loop.connect_write_pipe(Recorder, os.fdopen(slave, "wb", 0))
    writer.write(pattern(50_000))
    await receiver.until_bytes(50_000)
    assert receiver.data == pattern(50_000)
    writer.close()
    await sender.until_event("lost")
    await receiver.until_event("lost")


async def test_a_named_fifo_gets_a_second_writer(loop, tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    _, protocol = await loop.connect_read_pipe(Recorder, os.fdopen(fd, "rb", 0))
    with path.open("wb", 0) as first:
        first.write(b"one")
        await protocol.until_bytes(3)
        with path.open("wb", 0) as second:
            second.write(b"two")
            await protocol.until_bytes(6)
    await protocol.until_event("lost")
    assert protocol.data == b"onetwo"


async def test_datagrams_of_a_socket_keep_their_bounds(loop):
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    transport, protocol = await loop.connect_read_pipe(Recorder, one)
    for size in (3, 1, 2):
        other.send(b"x" * size)
    await protocol.until_bytes(6)
    assert [len(chunk) for chunk in protocol.chunks] == [3, 1, 2]
    transport.close()
    await protocol.until_event("lost")
    other.close()


async def test_a_cancelled_connect_closes_its_pipe(loop):
    reader, writer = pipe_files()
    task = asyncio.ensure_future(loop.connect_read_pipe(Recorder, reader))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await settle()
    assert reader.closed
    writer.close()


@pytest.mark.skipif(not NATIVE, reason="asyncio takes the new pipe for the old one")
def test_a_pipe_closed_behind_the_loops_back_gives_its_number_to_another():
    with asyncio.Runner(loop_factory=EventLoop) as runner:
        runner.run(asyncio.wait_for(reuse_of_a_descriptor(), TIMEOUT_S))


async def reuse_of_a_descriptor():
    loop = asyncio.get_running_loop()
    transport, protocol, writer = await reading(loop)
    transport.get_extra_info("pipe").close()
    writer.close()
    other, second, feeding = await reading(loop)
    feeding.write(b"x")
    await second.until_bytes(1)
    assert protocol.data == b""
    other.close()
    feeding.close()
    await second.until_event("lost")
    transport.close()
    await protocol.until_event("lost")


async def test_debug_mode_logs_what_asyncio_logs(loop, caplog):
    loop.set_debug(True)
    caplog.set_level(logging.DEBUG, "asyncio")
    transport, protocol, writer = await reading(loop)
    transport.pause_reading()
    transport.resume_reading()
    writer.close()
    await protocol.until_event("lost")
    for words in ("pauses reading", "resumes reading", "was closed by peer"):
        assert words in caplog.text


def test_two_hundred_pipes_leave_nothing(loop, run):
    async def main():
        for _ in range(200):
            transport, protocol, writer = await reading(loop)
            writer.close()
            await protocol.until_event("lost")
            transport, protocol, reader = await writing(loop)
            transport.close()
            await protocol.until_event("lost")
            reader.close()

    before = len(os.listdir("/proc/self/fd"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(main())
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.skipif(not NATIVE, reason="asyncio's transports")
@pytest.mark.parametrize(("module", "name"), [("reader", "ReadPipe"), ("writer", "WritePipe")])
def test_a_transport_that_was_never_opened_crashes_nothing(module, name):
    kind = getattr(importlib.import_module(f"penstock._core.pipes.{module}"), name)
    for method in set(dir(kind)) - {"__new__", "__class__", "__subclasshook__", "__init_subclass__", "__del__"}:
        for arguments in ((), (None,), (b"x",), (None, None, None, None)):
            with contextlib.suppress(Exception):
                getattr(kind.__new__(kind), method)(*arguments)


@pytest.mark.parametrize("kind", ["fifo", "socket"])
async def test_a_pipe_that_the_program_closes_itself_reads_no_other_file(loop, kind):
    others = []

    class Closing(Recorder):
        def data_received(self, data):
            super().data_received(data)
            if not others:
                pipe = self.transport.get_extra_info("pipe")
                number = pipe.fileno()
                pipe.close()
                others.extend(pipe_files(kind))
                assert others[0].fileno() == number
                others[1].write(b"another's")

    transport, protocol, writer = await reading(loop, Closing(), kind)
    if kind == "fifo":
        # as much as one read asks for: another one would follow
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 1 << 20)
    writer.write(bytes(1 << 18) if kind == "fifo" else b"x")
    await protocol.until_event("data")
    await settle(20)
    assert os.read(others[0].fileno(), 100) == b"another's"
    transport.close()
    await protocol.until_event("lost")
    for file in (writer, *others):
        file.close()
