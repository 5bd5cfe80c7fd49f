"""Random sequences over pipes: the callbacks are asyncio's, in asyncio's order.

A sequence runs on asyncio's loop and on penstock's. Recorded are the callbacks, the exceptions, and what the transport
says of itself after each step.
"""

import asyncio
import logging
import os
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.loop import NATIVE, EventLoop

from .test_callback_order import merged, turns
from .wire import socket_pair

# less than a pipe takes, a page, and more than it takes
SIZES = st.sampled_from([0, 1, 4096, 9_000, 70_000, 300_000])


class Recorder(asyncio.Protocol):
    """Records the callbacks, and does at the first of each kind what the case says."""

    def __init__(self, case, name):
        self.case, self.name = case, name

    def saw(self, event, *facts):
        self.case.events.append((self.name, event, *facts))
        reaction = self.case.reactions.pop(event, "nothing")
        if reaction == "raise":
            raise ValueError(event)
        self.case.act(reaction, 1)

    def connection_made(self, transport):
        self.case.transport = transport
        self.saw("made")

    def data_received(self, data):
        self.saw("data", bytes(data))

    def eof_received(self):
        self.saw("eof")

    def connection_lost(self, exc):
        self.case.is_lost = True
        self.saw("lost", type(exc).__name__)

    def pause_writing(self):
        self.saw("pause_writing")

    def resume_writing(self):
        self.saw("resume_writing")


class Case:
    """One pipe, the record of what happened on it, and the plain descriptor of its other end."""

    def __init__(self, kind, reactions):
        self.kind, self.reactions = kind, dict(reactions)
        self.events, self.problems, self.protocols = [], [], 0
        self.is_lost = False
        self.ours, self.peer = self.ends()
        os.set_blocking(self.peer, False)

    def ends(self):
        if self.kind == "socket":
            one, other = socket.socketpair()
            return one.detach(), other.detach()
        return os.pipe()

    def protocol(self):
        self.protocols += 1
        return Recorder(self, self.protocols)

    def act(self, action, size):
        if action == "nothing":
            return
        if action == "switch":
            self.transport.set_protocol(self.protocol())
            return
        self.do(action, size)

    def peer_acts(self, action, size):
        """Have the other end do something. One that is gone does nothing."""
        if self.peer < 0:
            return
        try:
            if action == "close":
                peer, self.peer = self.peer, -1
                os.close(peer)
            else:
                self.peer_does(size)
        except OSError:
            pass

    async def run(self, steps, fence):
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self.problems.append(type(context.get("exception")).__name__))
        await self.connect(loop)
        for party, action, size in steps:
            if action == "turns":
                await turns(fence)
            elif party == "peer":
                self.peer_acts(action, size)
            else:
                self.act(action, size)
            self.note()
        await turns(fence)
        if not self.transport.is_closing() or self.is_open_still():
            self.end()
        await turns(fence)
        self.peer_acts("close", 0)
        assert self.is_lost
        return merged(self.events), self.problems


class ReadingCase(Case):
    """The transport reads."""

    async def connect(self, loop):
        await loop.connect_read_pipe(self.protocol, os.fdopen(self.ours, "rb", 0))

    def do(self, action, size):
        {
            "pause": self.transport.pause_reading,
            "resume": self.transport.resume_reading,
            "close": self.transport.close,
        }[action]()

    def peer_does(self, size):
        os.write(self.peer, b"p" * size)

    def note(self):
        self.events.append((self.transport.is_closing(), self.transport.is_reading()))

    def is_open_still(self):
        return False

    def end(self):
        self.transport.close()


class WritingCase(Case):
    """The transport writes."""

    def ends(self):
        return Case.ends(self)[::-1]

    async def connect(self, loop):
        await loop.connect_write_pipe(self.protocol, os.fdopen(self.ours, "wb", 0))

    def do(self, action, size):
        transport = self.transport
        if action == "abort" and transport.is_closing() and not transport.get_write_buffer_size():
            return  # asyncio's is lost twice (gh-156512)
        {
            "write": lambda: transport.write(b"w" * size),
            "writelines": lambda: transport.writelines([b"l" * size, b"m"]),
            "close": transport.close,
            "abort": transport.abort,
            "write_eof": transport.write_eof,
            "limits": lambda: transport.set_write_buffer_limits(high=size),
        }[action]()

    def peer_does(self, size):
        while os.read(self.peer, max(size, 1)) and size > 9_000:
            pass

    def note(self):
        self.events.append((self.transport.is_closing(), self.transport.get_write_buffer_size()))

    def is_open_still(self):
        return self.transport.get_write_buffer_size() > 0

    def end(self):
        self.transport.abort()


def steps(ours):
    one = st.one_of(
        st.tuples(st.just("we"), st.sampled_from(ours), SIZES),
        st.tuples(st.just("peer"), st.sampled_from(["act", "act", "close"]), SIZES),
        st.tuples(st.just("both"), st.just("turns"), st.just(0)),
    )
    return st.lists(one, max_size=12)


def reacting(events, reactions):
    return st.dictionaries(
        st.sampled_from(events), st.sampled_from(["nothing", "switch", "raise", *reactions]), max_size=3
    )


def outcome(factory, make, kind, reactions, sequence):
    with asyncio.Runner(loop_factory=factory) as runner:
        near, far = socket_pair("tcp")
        with near, far:
            return runner.run(make(kind, reactions).run(sequence, (near, far)))


def compare(*case):
    logging.getLogger("asyncio").disabled = True
    try:
        assert outcome(EventLoop, *case) == outcome(asyncio.SelectorEventLoop, *case)
    finally:
        logging.getLogger("asyncio").disabled = False


@pytest.mark.skipif(not NATIVE, reason="both are asyncio's transport")
@pytest.mark.parametrize("kind", ["fifo", "socket"])
@settings(derandomize=True, max_examples=100, database=None, deadline=None)
@given(
    sequence=steps(["pause", "resume", "resume", "close", "switch"]),
    reactions=reacting(["made", "data", "eof", "lost"], ["pause", "resume", "close"]),
)
def test_the_callbacks_of_a_read_pipe_are_asyncios(kind, sequence, reactions):
    compare(ReadingCase, kind, reactions, sequence)


@pytest.mark.skipif(not NATIVE, reason="both are asyncio's transport")
@pytest.mark.parametrize("kind", ["fifo", "socket"])
@settings(derandomize=True, max_examples=100, database=None, deadline=None)
@given(
    sequence=steps(["write", "write", "writelines", "close", "abort", "write_eof", "limits", "switch"]),
    reactions=reacting(["made", "pause_writing", "resume_writing", "lost"], ["write"]),
)
def test_the_callbacks_of_a_write_pipe_are_asyncios(kind, sequence, reactions):
    compare(WritingCase, kind, reactions, sequence)
