"""asyncio's StreamReader over a transport: fed as asyncio feeds it, whatever is read, replaced or broken meanwhile."""

import asyncio
import fcntl
import gc
import socket
import struct
import termios
from contextlib import ExitStack
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.loop import EventLoop
from tests.support.loops import TIMEOUT_S

from .wire import socket_pair

LIMIT_BYTES = 16
SEPARATORS = [b"\n", b"ab", b"b\n"]
# Few letters, so that separators are found, and lines that are too long.
SENT = st.lists(st.sampled_from(b"ab\n"), min_size=1, max_size=60).map(bytes)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), SENT),
        st.tuples(st.just("read"), st.integers(-1, 40)),
        st.tuples(st.just("readexactly"), st.integers(0, 50)),
        st.tuples(st.just("readuntil"), st.sampled_from(SEPARATORS)),
        st.tuples(st.just("readline"), st.none()),
        st.tuples(st.sampled_from(["cancel", "eof", "fail", "pause", "resume"]), st.none()),
    ),
    max_size=25,
)


class Conversation:
    """A StreamReader over a socket, its peer, and one reading coroutine at a time; `seen` is what came of each step."""

    async def open(self):
        ours, self.peer = socket_pair("unix")
        loop = asyncio.get_running_loop()
        self.reader = asyncio.StreamReader(LIMIT_BYTES)
        self.protocol = asyncio.StreamReaderProtocol(self.reader)
        self.transport, _ = await loop.connect_accepted_socket(lambda: self.protocol, ours)
        self.fd = self.transport.get_extra_info("socket").fileno()
        self.has_ended, self.reading, self.seen = False, None, []

    async def take(self, step, value):
        if step == "send":
            if not self.has_ended:
                self.peer.sendall(value)
        elif step == "eof":
            self.peer.shutdown(socket.SHUT_WR)
            self.has_ended = True
        elif step == "fail":
            self.reader.set_exception(ConnectionError("given"))
        elif step in ("pause", "resume"):
            getattr(self.transport, f"{step}_reading")()
        elif step == "cancel":
            if self.reading:
                self.reading.cancel()
        else:
            arguments = () if value is None else (value,)
            # beside one that waits already it is refused: its error is what counts
            reading = asyncio.ensure_future(getattr(self.reader, step)(*arguments))
            reading.add_done_callback(self.note)
            self.reading = self.reading or reading
        await self.settle()

    def note(self, reading):
        self.reading = None if reading is self.reading else self.reading
        if reading.cancelled():
            self.seen.append("cancelled")
        elif error := reading.exception():
            partial = getattr(error, "partial", None), getattr(error, "consumed", None)
            self.seen.append((type(error), str(error), partial))
        else:
            self.seen.append(reading.result())

    async def settle(self):
        """Wait until everything that can be read has been, and is known."""
        while self.transport.is_reading() and not self.is_dry():
            await asyncio.sleep(0)
        for _ in range(6):
            await asyncio.sleep(0)
        if self.transport.is_reading() and not self.is_dry():
            await self.settle()
        reader = self.reader
        self.seen.append((bytes(reader._buffer), reader._eof, reader._paused, reader._waiter is None))

    def is_dry(self):
        unread = fcntl.ioctl(self.fd, termios.FIONREAD, bytes(4))
        return struct.unpack("i", unread)[0] == 0 and (self.reader._eof or not self.has_ended)


async def outcome(steps):
    conversation = Conversation()
    await conversation.open()
    for step, value in steps:
        await conversation.take(step, value)
    if conversation.reading:
        conversation.reading.cancel()
    conversation.transport.abort()
    await conversation.settle()
    conversation.peer.close()
    return conversation.seen


@settings(derandomize=True, max_examples=150, database=None, deadline=None)
@given(steps=STEPS)
def test_any_sequence_of_data_and_reads_gives_what_asyncio_gives(steps):
    found = []
    for factory in (asyncio.SelectorEventLoop, EventLoop):
        with asyncio.Runner(loop_factory=factory) as runner:
            found.append(runner.run(asyncio.wait_for(outcome(steps), TIMEOUT_S)))
    assert found[1] == found[0]


@settings(derandomize=True, max_examples=12, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(1, 400_000), min_size=1, max_size=6),
    limit=st.sampled_from([1, 1000, 65_536, 2**70]),
    size=st.sampled_from([5000, 70_000, 300_000]),
)
def test_large_reads_lose_nothing(loop_factory, sizes, limit, size):
    """Reads of any size, small and large in turn, with a limit that pauses for each, and one beyond any machine's."""

    async def exchanged():
        ours, theirs = socket_pair("tcp")
        reader, writer = await asyncio.open_connection(sock=ours, limit=limit)
        _, sender = await asyncio.open_connection(sock=theirs)
        sent = b"".join(bytes([at % 251]) * each for at, each in enumerate(sizes))
        sender.write(sent)
        sender.write_eof()
        parts = []
        while data := await reader.read(size):
            parts.append(data)
        sender.close()
        writer.close()
        return b"".join(parts), sent

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        received, sent = runner.run(asyncio.wait_for(exchanged(), TIMEOUT_S))
    assert received == sent


async def connected(reader, protocol=None):
    ours, peer = socket_pair("tcp")
    protocol = protocol or asyncio.StreamReaderProtocol(reader)
    transport, _ = await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, ours)
    return transport, protocol, peer


def spied(function, calls):
    def spy(*args):
        calls.append(args[-1] if args else None)
        return function(*args)

    return spy


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (asyncio.StreamReader, "feed_data"),
        (asyncio.StreamReader, "_wakeup_waiter"),
        (asyncio.StreamReaderProtocol, "data_received"),
    ],
)
@pytest.mark.parametrize(
    ("where", "when"),
    [("class", "before"), ("class", "after"), ("object", "before"), ("object", "after"), ("subclass", "before")],
)
async def test_a_replaced_method_is_called(kind, name, where, when):
    calls = []
    spy = spied(getattr(kind, name), calls)
    own = type("Own", (kind,), {name: spy} if where == "subclass" else {})
    reader = own() if kind is asyncio.StreamReader else asyncio.StreamReader()
    protocol = (own if kind is asyncio.StreamReaderProtocol else asyncio.StreamReaderProtocol)(reader)
    target = reader if kind is asyncio.StreamReader else protocol

    def replace(patches):
        if where == "object":
            setattr(target, name, spied(getattr(target, name), calls))
        elif where == "class":
            patches.enter_context(mock.patch.object(kind, name, spy))

    with ExitStack() as patches:
        if when == "before":
            replace(patches)
        transport, _, peer = await connected(reader, protocol)
        if when == "after":
            peer.send(b"first\n")
            assert await reader.readline() == b"first\n"
            assert not calls
            replace(patches)
        peer.send(b"second\n")
        assert await reader.readline() == b"second\n"
    assert len(calls) == 1
    assert name == "_wakeup_waiter" or (type(calls[0]), calls[0]) == (bytes, b"second\n")
    transport.abort()
    peer.close()


async def test_another_reader_of_the_protocol_is_fed():
    first, second = asyncio.StreamReader(), asyncio.StreamReader()
    transport, protocol, peer = await connected(first)
    peer.send(b"one\n")
    assert await first.readline() == b"one\n"
    with mock.patch.object(asyncio.StreamReaderProtocol, "_stream_reader", second):
        peer.send(b"two\n")
        assert await second.readline() == b"two\n"
    peer.send(b"three\n")
    assert await first.readline() == b"three\n"
    protocol._stream_reader_wr = lambda: second
    peer.send(b"four\n")
    assert await second.readline() == b"four\n"
    transport.abort()
    peer.close()


async def test_a_reader_of_another_kind_of_buffer_is_fed():
    class Buffer(bytearray):
        pass

    reader = asyncio.StreamReader()
    reader._buffer = Buffer()
    transport, _, peer = await connected(reader)
    peer.send(b"line\n")
    assert await reader.readline() == b"line\n"
    transport.abort()
    peer.close()


async def test_data_for_a_dropped_reader_is_dropped():
    ended = asyncio.Event()

    class Protocol(asyncio.StreamReaderProtocol):
        def eof_received(self):
            ended.set()
            return super().eof_received()

    reader = asyncio.StreamReader()
    transport, _, peer = await connected(reader, Protocol(reader))
    del reader
    gc.collect()
    peer.send(b"data")
    peer.shutdown(socket.SHUT_WR)
    await ended.wait()
    assert not transport.is_closing()
    transport.abort()
    peer.close()


@pytest.mark.parametrize("size", [5, 200_000])
async def test_a_view_of_the_buffer_ends_the_connection_as_asyncio_does(problems, size):
    """A bytearray with views cannot grow: the error is reported, and the reader gets it."""
    reader = asyncio.StreamReader(2**20)
    transport, _, peer = await connected(reader)
    peer.setblocking(True)
    await asyncio.to_thread(peer.sendall, bytes(size))
    await reader.readexactly(size - 1)
    with memoryview(reader._buffer), pytest.raises(BufferError):
        peer.send(b"more")
        while not transport.is_closing():
            await asyncio.sleep(0)
        await reader.readexactly(10)
    (problem,) = problems
    assert problem["message"] == "Fatal error: protocol.data_received() call failed."
    assert isinstance(problem["exception"], BufferError)
    peer.close()


async def test_data_after_a_fed_end_is_an_error(problems):
    reader = asyncio.StreamReader()
    transport, _, peer = await connected(reader)
    reader.feed_eof()
    peer.send(b"more")
    while not problems:
        await asyncio.sleep(0)
    assert str(problems[0]["exception"]) == "feed_data after feed_eof" or not __debug__
    assert transport.is_closing()
    peer.close()


async def test_a_transport_that_cannot_pause_is_forgotten():
    class Unpausable:
        def pause_reading(self):
            raise NotImplementedError

    reader = asyncio.StreamReader(1)
    transport, _, peer = await connected(reader)
    reader._transport = Unpausable()
    peer.send(b"abc")
    assert await reader.readexactly(3) == b"abc"
    assert reader._transport is None
    assert not reader._paused
    transport.abort()
    peer.close()


@pytest.mark.parametrize("limit", [1.5, 1])
async def test_a_reader_pauses_beyond_twice_its_limit(limit):
    reader = asyncio.StreamReader(limit)
    transport, _, peer = await connected(reader)
    peer.send(b"a" * int(2 * limit))
    while len(reader._buffer) < int(2 * limit):
        await asyncio.sleep(0)
    assert transport.is_reading()
    peer.send(b"b")
    while transport.is_reading():
        await asyncio.sleep(0)
    assert reader._paused
    transport.abort()
    peer.close()


async def test_an_error_of_a_waiter_ends_the_connection(problems):
    class Failing:
        def cancelled(self):
            return False

        def set_result(self, result):
            raise ValueError

    reader = asyncio.StreamReader()
    transport, _, peer = await connected(reader)
    reader._waiter = Failing()
    peer.send(b"data")
    while not problems:
        await asyncio.sleep(0)
    assert isinstance(problems[0]["exception"], ValueError)
    assert reader._buffer == b"data"
    assert transport.is_closing()
    peer.close()
