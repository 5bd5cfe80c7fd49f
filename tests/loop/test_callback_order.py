"""Random sequences of transport calls and of what the peer does: the callbacks are asyncio's, in asyncio's order.

A sequence runs on asyncio's loop and on penstock's. Between two steps of it the loop may turn until nothing is left to
be seen. Recorded are the callbacks, the exceptions of calls, and what the transport says of itself after each step.
"""

import asyncio
import logging
import socket
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.loop import NATIVE, EventLoop

from .wire import socket_pair

# penstock polls every 64 turns at the latest; a callback may be three turns behind its event
TURNS = 80
ROUNDS = 3
# more than the kernel takes of a Unix socket below, and less
SIZES = st.sampled_from([0, 1, 900, 9_000, 70_000])
SMALL = st.sampled_from([0, 1, 900])
RESET = struct.pack("ii", 1, 0)
REACTIONS = ["nothing", "write", "pause", "resume", "close", "abort", "write_eof", "switch", "raise"]


class Recorder(asyncio.Protocol):
    """Records the callbacks, and does at the first of each kind what the case says."""

    def __init__(self, case, name):
        self.case, self.name = case, name

    def saw(self, event, *facts):
        self.case.events.append((self.name, event, *facts))
        reaction = self.case.reactions.pop(event, "nothing")
        if reaction == "raise":
            raise ValueError(event)
        self.case.act(reaction)

    def connection_made(self, transport):
        self.case.transport = transport
        self.saw("made")

    def data_received(self, data):
        self.saw("data", bytes(data))

    def eof_received(self):
        self.case.is_eof = True
        self.saw("eof")
        return self.case.keeps_open

    def connection_lost(self, exc):
        self.case.is_lost = True
        self.saw("lost", type(exc).__name__)

    def pause_writing(self):
        self.saw("pause_writing")

    def resume_writing(self):
        self.saw("resume_writing")


class BufferedRecorder(Recorder, asyncio.BufferedProtocol):
    """The same, with a buffer of its own."""

    data_received = None

    def get_buffer(self, sizehint):
        self.buffer = bytearray(4096)
        return self.buffer

    def buffer_updated(self, size):
        self.saw("data", bytes(self.buffer[:size]))


class Case:
    """One connection, the record of what happened on it, and its peer: a plain socket."""

    def __init__(self, family, is_buffered, keeps_open, reactions):
        self.ours, self.peer = socket_pair(family)
        self.peer.setblocking(False)
        self.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        self.family, self.keeps_open, self.reactions = family, keeps_open, dict(reactions)
        self.make = BufferedRecorder if is_buffered else Recorder
        self.events, self.problems, self.protocols = [], [], 0
        self.is_lost = self.is_eof = False

    def protocol(self):
        self.protocols += 1
        return self.make(self, self.protocols)

    def act(self, action, size=1):
        """Call the transport's method. Its exception is a result too."""
        if action == "writelines" and (self.transport.is_closing() or self.transport.get_write_buffer_size()):
            return  # asyncio's calls None, hangs on an empty chunk (gh-155888), and in 3.13.0 never pauses
        if action in ("pause", "resume") and self.is_eof:
            return  # asyncio reads the end once more, and calls eof_received again
        call = {
            "nothing": lambda: None,
            "write": lambda: self.transport.write(b"w" * size),
            "writelines": lambda: self.transport.writelines([b"l" * min(size or 1, 900), b"m"]),
            "pause": self.transport.pause_reading,
            "resume": self.transport.resume_reading,
            "close": self.transport.close,
            "abort": self.transport.abort,
            "write_eof": self.transport.write_eof,
            "switch": lambda: self.transport.set_protocol(self.protocol()),
            "limits": lambda: self.transport.set_write_buffer_limits(high=size),
        }[action]
        try:
            call()
        except Exception as exc:
            # up to 3.11 asyncio's writelines is a write
            self.events.append((action, type(exc).__name__, str(exc).replace("writelines()", "write()")))

    def peer_acts(self, action, size=1):
        """Have the peer do something. One that is gone does nothing."""
        if self.peer.fileno() < 0:
            return
        try:
            if action == "send":
                self.peer.send(b"p" * size)
            elif action == "drain":
                while self.peer.recv(1 << 20):
                    pass
            elif action == "shut":
                self.peer.shutdown(socket.SHUT_WR)
            else:
                if action == "reset" and self.family != "unix":
                    self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                self.peer.close()
        except OSError:
            pass

    def note(self):
        transport = self.transport
        size = transport.get_write_buffer_size() if self.family == "unix" else 0
        self.events.append((transport.is_closing(), transport.is_reading(), size))

    async def run(self, steps, fence):
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self.problems.append(type(context.get("exception")).__name__))
        await loop.connect_accepted_socket(self.protocol, self.ours)
        for party, action, size in steps:
            if action == "turns":
                await turns(fence)
            elif party == "peer":
                self.peer_acts(action, size)
                if self.transport.get_write_buffer_size():
                    await turns(fence)  # `writelines` of asyncio tries to send before the loop knows that there is room
            else:
                self.act(action, size)
            self.note()
        await turns(fence)
        self.transport.abort()
        await turns(fence)
        self.peer.close()
        assert self.is_lost
        return merged(self.events), self.problems


async def turns(fence):
    """Let the loop turn until it has seen everything: what was sent before the fence's byte has arrived when it has."""
    near, far = fence
    for _ in range(ROUNDS):
        near.send(b".")
        far.recv(1)
        for _ in range(TURNS):
            await asyncio.sleep(0)


def merged(events):
    """The events, with data that came in pieces as one."""
    found = []
    for event in events:
        if event[1:2] == ("data",) and found and found[-1][:2] == event[:2]:
            found[-1] = (*event[:2], found[-1][2] + event[2])
        else:
            found.append(event)
    return found


def steps(sizes):
    ours = ["write", "writelines", "pause", "resume", "close", "abort", "write_eof", "switch", "limits"]
    one = st.one_of(
        st.tuples(st.just("we"), st.sampled_from(ours), sizes),
        st.tuples(st.just("peer"), st.sampled_from(["send", "drain", "shut", "reset", "close"]), sizes),
        st.tuples(st.just("both"), st.just("turns"), st.just(0)),
    )
    return st.lists(one, max_size=10)


REACTING = st.dictionaries(
    st.sampled_from(["data", "eof", "lost", "pause_writing", "resume_writing"]), st.sampled_from(REACTIONS), max_size=3
)


def outcome(factory, family, is_buffered, keeps_open, reactions, sequence):
    with asyncio.Runner(loop_factory=factory) as runner:
        near, far = socket_pair("tcp")
        with near, far:
            return runner.run(Case(family, is_buffered, keeps_open, reactions).run(sequence, (near, far)))


@pytest.mark.skipif(not NATIVE, reason="both are asyncio's transport")
@pytest.mark.parametrize("family", ["unix", "tcp"])
@settings(derandomize=True, max_examples=150, database=None, deadline=None)
@given(data=st.data(), is_buffered=st.booleans(), keeps_open=st.booleans(), reactions=REACTING)
def test_the_callbacks_of_a_random_sequence_are_asyncios(family, data, is_buffered, keeps_open, reactions):
    sequence = data.draw(steps(SIZES if family == "unix" else SMALL))
    case = family, is_buffered, keeps_open, reactions, sequence
    logging.getLogger("asyncio").disabled = True
    try:
        assert outcome(EventLoop, *case) == outcome(asyncio.SelectorEventLoop, *case)
    finally:
        logging.getLogger("asyncio").disabled = False
