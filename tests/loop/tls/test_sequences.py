"""Random sequences on a TLS connection: both sides' calls give asyncio's callbacks, in asyncio's order.

A sequence runs on asyncio's loop and on penstock's, with the loop's side a server or a client. Recorded are the
callbacks, their data and exceptions, the reports to the exception handler, and the bytes that the peer decrypts.
`PENSTOCK_EXAMPLES=10000` runs more examples than the suite does, and other ones each time.
"""

import asyncio
import contextlib
import logging
import os
import socket
import ssl

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.loop import NATIVE, EventLoop

from ..test_callback_order import merged, turns
from ..wire import socket_pair
from .peer import Peer, connect, peer_of

EXAMPLES = int(os.environ.get("PENSTOCK_EXAMPLES", "0"))
# less than the high watermarks of asyncio's TLS: it does not pause at its first write, whatever its size
SIZES = st.sampled_from([0, 1, 900, 16_384, 16_385, 40_000])
REACTIONS = ["nothing", "write", "pause", "close", "abort", "switch", "raise"]
OURS = ["write", "writelines", "pause", "resume", "close", "abort", "switch"]
PEERS = ["send", "cut", "notify", "shut", "garbage", "reset", "close"]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("we"), st.sampled_from(OURS), SIZES),
        st.tuples(st.just("peer"), st.sampled_from(PEERS), SIZES),
        st.tuples(st.just("both"), st.just("turns"), st.just(0)),
    ),
    max_size=10,
)
REACTING = st.fixed_dictionaries(
    # a client of asyncio's that pauses in connection_made never sends the end of its handshake
    {"made": st.sampled_from([each for each in REACTIONS if each != "pause"])},
    optional={event: st.sampled_from(REACTIONS) for event in ("data", "eof", "lost")},
)


class Noting(asyncio.Protocol):
    """Records the callbacks, and does at the first of each kind what the case says."""

    def __init__(self, case, number):
        self.case, self.number = case, number

    def saw(self, event, *facts):
        self.case.events.append((self.number, event, *facts))
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


class NotingInBuffer(Noting, asyncio.BufferedProtocol):
    """The same, with a buffer of its own."""

    data_received = None

    def get_buffer(self, sizehint):
        self.view = memoryview(bytearray(5000))
        return self.view

    def buffer_updated(self, nbytes):
        self.saw("data", bytes(self.view[:nbytes]))


class Case:
    """One connection, the record of what happened on it, and its peer."""

    transport = None

    def __init__(self, pair, side, is_buffered, reactions):
        self.pair, self.side, self.reactions = pair, side, dict(reactions)
        self.kinds = [NotingInBuffer, Noting] if is_buffered else [Noting, NotingInBuffer]
        self.events, self.problems, self.protocols = [], [], 0
        self.is_lost = self.is_cut_off = self.is_notified = False
        self.written, self.received, self.rest = bytearray(), bytearray(), b""

    def protocol(self):
        self.protocols += 1
        return self.kinds[self.protocols % 2](self, self.protocols)

    def act(self, action, size):
        """Call the transport's method, unless it is closing: asyncio's fails there in ways of its own."""
        if self.transport.is_closing() and action not in ("write", "abort"):
            return
        if action in ("write", "writelines") and not self.transport.is_closing():
            self.written += b"w" * size
        self.is_cut_off |= action == "abort"
        {
            "nothing": lambda: None,
            "write": lambda: self.transport.write(b"w" * size),
            "writelines": lambda: self.transport.writelines([b"w" * (size // 2), b"", b"w" * (size - size // 2)]),
            "pause": self.transport.pause_reading,
            "resume": self.transport.resume_reading,
            "close": self.transport.close,
            "abort": self.transport.abort,
            "switch": lambda: self.transport.set_protocol(self.protocol()),
        }[action]()

    def peer_acts(self, action, size):
        """Have the peer do something. A peer that is gone or has ended does nothing."""
        sock = self.peer.sock
        if sock.fileno() < 0 or (self.is_notified and action in ("send", "cut", "notify")):
            return
        if action in ("garbage", "reset") and (self.transport.is_closing() or not self.transport.is_reading()):
            return  # asyncio loses what it has decrypted before; while paused it reads on
        with contextlib.suppress(OSError):
            if action == "send":
                sock.send(self.rest + self.peer.records(b"p" * size))
                self.rest = b""
            elif action == "cut":
                wire = self.rest + self.peer.records(b"q" * (size or 1))
                cut = 3 if size == 1 else len(wire) // 2
                sock.send(wire[:cut])
                self.rest = wire[cut:]
            elif action == "notify":
                self.is_notified = True
                sock.send(self.rest + self.peer.close_notify())
            elif action == "garbage":
                sock.send(bytes(60))
                self.is_notified = True
            elif action == "shut":
                sock.shutdown(socket.SHUT_WR)
                self.is_notified = True
            elif action == "reset":
                self.is_cut_off = True
                self.peer.reset()
            else:
                self.is_cut_off = True
                sock.close()

    def drain(self):
        """Have the peer decrypt what has come."""
        if self.peer.sock.fileno() < 0:
            return
        with contextlib.suppress(OSError):
            while wire := self.peer.sock.recv(1 << 20):
                self.peer.incoming.write(wire)
        with contextlib.suppress(ssl.SSLError):
            while data := self.peer.tls.read(1 << 20):
                self.received += data

    async def settle(self):
        await turns(self.fence)
        self.drain()

    async def run(self, steps, fence):
        self.fence = fence
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self.problems.append(self.told(context)))
        ours, theirs = socket_pair("unix")
        self.peer: Peer = peer_of(theirs, self.pair, self.side)
        connecting = connect(ours, self.pair, self.side, self.protocol(), ssl_shutdown_timeout=60)
        result, _ = await asyncio.gather(connecting, self.peer.handshake(), return_exceptions=True)
        self.events.append(type(result).__name__ if isinstance(result, BaseException) else "connected")
        await self.settle()
        for party, action, size in steps:
            if self.is_lost:
                break
            if party == "peer":
                await self.settle()
                self.peer_acts(action, size)
                await self.settle()
            elif party == "we":
                self.act(action, size)
                if self.peer.sock.fileno() < 0:
                    await self.settle()
            else:
                await self.settle()
            self.note(action)
        await self.settle()
        self.note("end")
        if not self.is_lost:
            self.events.append("alive")
            self.transport.abort()
            await self.settle()
        theirs.close()
        assert self.is_lost
        assert bytes(self.written).startswith(bytes(self.received))
        whole = bytes(self.received) if not self.is_cut_off else b""
        return merged(self.events), self.problems, whole

    def note(self, action):
        closing = self.transport.is_closing()
        self.events.append((action, closing, None if closing else self.transport.is_reading()))

    def told(self, context):
        return type(context.get("exception")).__name__, context["message"].partition(" <")[0]


def outcome(factory, pair, case, steps):
    with asyncio.Runner(loop_factory=factory) as runner:
        near, far = socket_pair("tcp")
        with near, far:
            return runner.run(asyncio.wait_for(Case(pair, *case).run(steps, (near, far)), 20))


@pytest.mark.skipif(not NATIVE, reason="both are asyncio's TLS")
@pytest.mark.parametrize("side", ["client", "server"])
@settings(
    derandomize=not EXAMPLES,
    max_examples=EXAMPLES or 50,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(is_buffered=st.booleans(), reactions=REACTING, steps=STEPS)
def test_the_callbacks_of_a_random_sequence_are_asyncios(contexts, side, is_buffered, reactions, steps):
    case = side, is_buffered, reactions
    logging.getLogger("asyncio").disabled = True
    try:
        assert outcome(EventLoop, contexts, case, steps) == outcome(asyncio.SelectorEventLoop, contexts, case, steps)
    finally:
        logging.getLogger("asyncio").disabled = False
