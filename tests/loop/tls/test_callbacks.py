"""Exceptions out of a protocol's callbacks: what is reported, and what becomes of the connection."""

import asyncio

import pytest

from ..wire import Recorder, settle
from .peer import connect, peer_of, secured, socket_pair
from .test_reading import Lending


class Failing(Recorder):
    """Raises at the first call of one callback."""

    def __init__(self, name, error=ValueError):
        super().__init__()
        self.name, self.raised = name, error("planned")

    def fail(self, name):
        if self.name == name:
            self.name = ""
            raise self.raised

    def connection_made(self, transport):
        super().connection_made(transport)
        self.fail("connection_made")

    def data_received(self, data):
        super().data_received(data)
        self.fail("data_received")

    def eof_received(self):
        super().eof_received()
        self.fail("eof_received")

    def connection_lost(self, exc):
        super().connection_lost(exc)
        self.fail("connection_lost")

    def pause_writing(self):
        super().pause_writing()
        self.fail("pause_writing")

    def resume_writing(self):
        super().resume_writing()
        self.fail("resume_writing")


def told(problems):
    return [(problem["message"], problem["exception"]) for problem in problems]


async def test_data_received_that_raises_ends_the_connection(pair, side, problems):
    async with secured(pair, side, Failing("data_received")) as (_, protocol, peer):
        await peer.write(b"x")
        await protocol.until_event("lost")
        assert protocol.error is protocol.raised
        assert protocol.events == ["made", "data", "lost"]
        assert told(problems) == [("Fatal error on SSL protocol", protocol.raised)]
        assert {"transport", "protocol"} <= problems[0].keys()


@pytest.mark.parametrize("name", ["get_buffer", "buffer_updated"])
async def test_a_buffered_protocol_that_raises_ends_the_connection(pair, side, problems, name):
    error = ValueError("planned")

    class Failing(Lending):
        def get_buffer(self, sizehint):
            if name == "get_buffer" and "data" not in self.inner.events and self.armed:
                raise error
            return super().get_buffer(sizehint)

        def buffer_updated(self, nbytes):
            super().buffer_updated(nbytes)
            raise error

        armed = False

    async with secured(pair, side, Failing(100)) as (_, protocol, peer):
        protocol.armed = True
        await peer.write(b"x")
        await protocol.inner.until_event("lost")
        assert protocol.inner.error is error
        assert told(problems) == [("Fatal error on SSL protocol", error)]


async def test_eof_received_that_raises_ends_the_connection(pair, side, problems):
    async with secured(pair, side, Failing("eof_received")) as (_, protocol, peer):
        await peer.send(peer.close_notify())
        await protocol.until_event("lost")
        assert protocol.error is protocol.raised
        assert protocol.events == ["made", "eof", "lost"]
        assert told(problems) == [("Error calling eof_received()", protocol.raised)]


async def test_connection_made_that_raises_ends_the_connection(pair, side, problems):
    ours, theirs = socket_pair()
    peer, protocol = peer_of(theirs, pair, side), Failing("connection_made")
    connecting, shaking = connect(ours, pair, side, protocol), peer.handshake()
    error, _ = await asyncio.gather(connecting, shaking, return_exceptions=True)
    assert error is protocol.raised
    await protocol.until_event("lost")
    assert protocol.error is protocol.raised
    assert protocol.events == ["made", "lost"]
    assert [exception for _, exception in told(problems)] == [protocol.raised]
    theirs.close()


async def test_connection_lost_that_raises_is_reported(pair, side, problems):
    async with secured(pair, side, Failing("connection_lost")) as (transport, protocol, _):
        transport.abort()
        await protocol.until_event("lost")
        await settle()
        assert [exception for _, exception in told(problems)] == [protocol.raised]
        assert protocol.events == ["made", "lost"]


@pytest.mark.parametrize("name", ["pause_writing", "resume_writing"])
async def test_flow_control_that_raises_is_reported_and_the_connection_goes_on(pair, side, problems, name):
    async with secured(pair, side, Failing(name)) as (transport, protocol, peer):
        for _ in range(2):
            transport.write(bytes(1 << 22))
        await peer.read_exactly(1 << 23)
        await protocol.until_event("resume")
        transport.write(b"end")
        assert await peer.read_exactly(3) == b"end"
        assert told(problems) == [(f"protocol.{name}() failed", protocol.raised)]
        assert problems[0].keys() >= {"transport", "protocol"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("name", ["data_received", "eof_received"])
def test_an_interrupt_leaves_the_loop_and_the_connection_usable(loop, pair, side, problems, name, error):
    protocol = Failing(name, error)
    ours, theirs = socket_pair()

    async def start():
        peer = peer_of(theirs, pair, side)
        (transport, _), _ = await asyncio.gather(connect(ours, pair, side, protocol), peer.handshake())
        return transport, peer

    async def provoke():
        await peer.send(peer.records(b"x") if name == "data_received" else peer.close_notify())
        await asyncio.sleep(20)

    async def go_on():
        if name == "data_received":
            await peer.write(b"y")
            await protocol.until_bytes(2)
            transport.write(b"z")
            assert await peer.read_exactly(1) == b"z"
        transport.abort()
        await protocol.until_event("lost")

    transport, peer = loop.run_until_complete(start())
    provoking = loop.create_task(provoke())
    with pytest.raises(error, match="planned"):
        loop.run_until_complete(provoking)
    provoking.cancel()
    loop.run_until_complete(asyncio.wait_for(go_on(), 10))
    assert protocol.events.count("lost") == 1
    assert problems == []
    theirs.close()
