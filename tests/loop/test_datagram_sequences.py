"""Random sequences of an endpoint's calls and its peer's actions: both loops make the same callbacks in one order."""

import asyncio
import contextlib
import socket
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.loops import BOTH, TIMEOUT_S

from .test_datagrams import Endpoint, drained
from .wire import settle

# Each step is a callback of its own, but for "both": two in one.
SENDS = st.tuples(st.just("send"), st.lists(st.sampled_from([0, 1, 100, 1000, 9000, 70_000]), min_size=1, max_size=5))
HEARS = st.tuples(st.just("hear"), st.lists(st.sampled_from([0, 1, 100, 9000]), min_size=1, max_size=5))
NAMES = ["pause", "resume", "wrong", "flood", "drain", "close", "abort", "look"]
CALLS = st.tuples(st.sampled_from(NAMES), st.just([]))
STEP = st.one_of(SENDS, HEARS, CALLS)
STEPS = st.lists(st.one_of(STEP, st.tuples(st.just("both"), st.lists(STEP, min_size=2, max_size=3))), max_size=12)
# What the protocol does with the second datagram that it receives.
REACTIONS = st.sampled_from(["nothing", "answer", "close", "abort", "pause", "raise"])
KINDS = st.sampled_from(["udp", "connected", "unix"])


class Wire:
    """An endpoint and its peer, the calls of both, and a record of what either sees."""

    def __init__(self, kind, reaction, folder):
        self.kind, self.reaction, self.folder = kind, reaction, folder
        self.endpoint = Endpoint(self.react)
        self.arrived = []
        self.problems = []
        self.heard = 0

    async def open(self, stack):
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self.problems.append(type(context["exception"])))
        family = socket.AF_UNIX if self.kind == "unix" else socket.AF_INET
        self.peer = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
        self.peer.bind(f"{self.folder}/peer" if self.kind == "unix" else ("127.0.0.1", 0))
        self.peer.setblocking(False)
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        name = f"{self.folder}/own" if self.kind == "unix" else ("127.0.0.1", 0)
        remote = None if self.kind == "udp" else self.peer.getsockname()
        self.transport, _ = await loop.create_datagram_endpoint(
            lambda: self.endpoint, local_addr=name, remote_addr=remote, family=family
        )
        # asyncio 3.13.0 keeps 8 bytes of each queued datagram: the marks are far from what a step queues
        self.transport.set_write_buffer_limits(high=6000, low=3000)
        self.name = self.transport.get_extra_info("sockname")
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)

    def react(self, transport, data):
        if len(self.endpoint.received) != 2:
            return
        if self.reaction == "answer":
            self.send([1, 2])
        elif self.reaction in ("close", "abort"):
            getattr(transport, self.reaction)()
        elif self.reaction == "pause":
            transport.pause_reading()
        elif self.reaction == "raise":
            raise ZeroDivisionError

    @property
    def is_over(self):
        return self.transport.is_closing()

    def send(self, sizes):
        for size in sizes:
            # an endpoint without a receiver of its own sends until it is lost, which is a turn that loops have apart
            if not self.is_over:
                self.transport.sendto(bytes(size), self.peer.getsockname() if self.kind == "udp" else None)

    def hear(self, sizes):
        for size in sizes:
            with contextlib.suppress(OSError):  # its queue is full, or it is closed
                self.peer.sendto(bytes(size), self.name)
                self.heard += 1

    def wrong(self, _):
        try:
            self.transport.sendto("text")
        except TypeError as exc:
            self.endpoint.events.append(str(exc))

    def flood(self, _):
        """Only a Unix socket's receiver can be full for long."""
        if self.kind == "unix":
            for _ in range(25):
                self.send([1000])

    def drain(self, _):
        self.arrived += [len(data) for data, _ in drained(self.peer)]

    def pause(self, _):
        self.transport.pause_reading()

    def resume(self, _):
        self.transport.resume_reading()

    def close(self, _):
        self.transport.close()

    def abort(self, _):
        self.transport.abort()

    def look(self, _):
        self.transport.get_write_buffer_size()

    def both(self, steps):
        for name, argument in steps:
            getattr(self, name)(argument)

    async def step(self, name, argument):
        getattr(self, name)(argument)
        await settle()
        # what was heard is read before the next step, on a loop that polls less often too
        while self.transport.is_reading() and len(self.endpoint.received) < self.heard:
            self.endpoint.changed.clear()
            await self.endpoint.changed.wait()
        await settle()

    async def end(self):
        """Let the peer take all, and close."""
        self.transport.close()
        while type(self.endpoint.events[-1]) is not tuple:
            self.drain(None)
            await asyncio.sleep(0.0001)
        self.drain(None)


async def seen(kind, reaction, steps):
    """All that the protocol and the peer have seen."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        wire = Wire(kind, reaction, Path(folder))
        await wire.open(stack)
        for name, argument in steps:
            await wire.step(name, argument)
        await wire.end()
        return wire.endpoint.events, wire.arrived, wire.problems


def order(events):
    """The events, each datagram as its size."""
    return [event if not isinstance(event, bytes) else len(event) for event in events]


@settings(derandomize=True, max_examples=60, database=None, deadline=None)
@given(kind=KINDS, reaction=REACTIONS, steps=STEPS)
def test_a_random_sequence_gives_the_callbacks_of_asyncio_in_their_order(kind, reaction, steps):
    results = {}
    for name, factory in BOTH.items():
        with asyncio.Runner(loop_factory=factory) as runner:
            results[name] = runner.run(asyncio.wait_for(seen(kind, reaction, steps), TIMEOUT_S))
    events, arrived, problems = results["penstock"]
    other_events, other_arrived, other_problems = results["asyncio"]
    assert order(events) == order(other_events)
    assert arrived == other_arrived
    assert problems == other_problems
