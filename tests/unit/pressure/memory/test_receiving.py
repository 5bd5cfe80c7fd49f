"""Tests of an integration's reports to the transport: a request has begun, a request is complete."""

import asyncio
import time

import pytest

from penstock.errors import SlowPeer
from penstock.pressure import expect_request, set_receive_deadline, set_receiving
from tests.unit.pressure.memory.peers import Accepted, Service

RECEIVE_S = 0.2
MUCH_LATER_S = 0.6


def begins(side, *_):
    assert set_receiving(side.transport, True)


def whole(side, *_):
    assert set_receiving(side.transport, False)


async def cut(side):
    await side.until_event("lost")
    assert isinstance(side.error, SlowPeer)
    return side.error


@pytest.mark.runner(receive_s=RECEIVE_S)
async def test_an_unfinished_request_is_disconnected():
    async with Service(on_data=begins) as service:
        side, client = await service.connect()
        client.send(b"GET / HT")
        error = await cut(side)
        assert (error.reason, error.size_bytes) == ("receive", 8)
        assert error.late_s >= RECEIVE_S
        assert f"pressure.receive_s = {RECEIVE_S}" in str(error)


@pytest.mark.runner(receive_s=2 * RECEIVE_S)
async def test_a_request_at_a_decent_rate_may_last_and_is_disconnected_when_it_stops():
    async with Service(on_data=begins) as service:
        side, client = await service.connect()
        for _ in range(12):
            client.send(b"x" * 100)
            await asyncio.sleep(0.05)
        assert "lost" not in side.events
        await side.until_event("lost")


@pytest.mark.runner(receive_s=2 * RECEIVE_S)
async def test_an_early_answer_does_not_mean_that_the_request_is_complete():
    def speak(side, data):
        begins(side)
        side.transport.write(b"100 go on")

    async with Service(on_data=speak) as service:
        silent, client = await service.connect()
        client.send(b"headers")
        assert (await cut(silent)).reason == "receive"
        # an early answer does not disconnect a client that sends fast enough
        steady, client = await service.connect()
        for _ in range(12):
            client.send(b"x" * 50)
            await asyncio.sleep(0.05)
        assert "lost" not in steady.events


@pytest.mark.runner(receive_s=RECEIVE_S)
async def test_a_complete_request_has_no_receive_deadline_whatever_follows():
    async with Service(on_data=whole) as service:
        side, client = await service.connect()
        for _ in range(8):
            client.send(b"x")
            await asyncio.sleep(0.08)
        assert "lost" not in side.events


@pytest.mark.runner(idle_s=0.3)
async def test_idle_s_applies_with_any_report():
    async with Service(on_made=whole) as service, Service(on_made=begins) as other:
        for each in (service, other):
            side, _ = await each.connect()
            await side.until_event("lost")
            assert side.error is None


@pytest.mark.runner(receive_s=RECEIVE_S)
async def test_time_in_which_reading_is_paused_does_not_count():
    async with Service(on_made=begins) as service:
        side, client = await service.connect()
        client.send(b"half a re")
        await side.until_bytes(9)
        side.transport.pause_reading()
        await asyncio.sleep(MUCH_LATER_S)
        assert "lost" not in side.events
        side.transport.resume_reading()
        resumed_s = time.monotonic()
        await cut(side)
        assert time.monotonic() - resumed_s >= RECEIVE_S * 0.9


@pytest.mark.runner(receive_s=RECEIVE_S)
async def test_bytes_that_came_while_the_loop_was_busy_are_read_before_the_deadline_is_checked():
    async with Service(on_made=begins, on_data=whole) as service:
        side, client = await service.connect()
        time.sleep(MUCH_LATER_S / 2)
        client.send(b"request")
        time.sleep(MUCH_LATER_S / 2)
        await side.until_bytes(7)
        await asyncio.sleep(MUCH_LATER_S)
        assert "lost" not in side.events


@pytest.mark.runner(receive_s=RECEIVE_S)
async def test_saying_the_same_again_gives_no_more_time():
    async with Service(on_made=begins) as service:
        side, _ = await service.connect()
        while "lost" not in side.events:
            begins(side)
            await asyncio.sleep(0.02)


@pytest.mark.runner(receive_s=RECEIVE_S)
async def test_another_protocol_begins_without_a_receive_deadline():
    async with Service(on_made=begins) as service:
        side, client = await service.connect()
        upgraded = Accepted()
        upgraded.note("made")
        side.transport.set_protocol(upgraded)
        client.send(b"m")
        await upgraded.until_bytes(1)
        await asyncio.sleep(MUCH_LATER_S)
        assert "lost" not in upgraded.events
        upgraded.transport = side.transport
        side.transport.abort()
        await upgraded.until_event("lost")
        side.note("lost")


@pytest.mark.runner(receive_s=RECEIVE_S)
async def test_an_expected_request_is_judged_by_its_bytes_again():
    async with Service(on_made=whole) as service:
        side, client = await service.connect()
        expect_request(side.transport)
        client.send(b"it may be whole")
        await asyncio.sleep(MUCH_LATER_S)
        assert "lost" not in side.events
        client.send(b"x")
        assert (await cut(side)).reason == "receive"


@pytest.mark.parametrize("bounds", [{}, {"idle_s": 60.0}], ids=["no bounds", "another one"])
def test_without_receive_s_it_says_nothing(run, bounds):
    async def main() -> None:
        async with Service(on_made=begins) as service:
            side, client = await service.connect()
            await asyncio.sleep(MUCH_LATER_S)
            whole(side)
            client.send(b"x")
            await side.until_bytes(1)
            assert "lost" not in side.events
            # a deadline that the program sets still applies
            set_receive_deadline(side.transport, 0.1)
            await cut(side)

    run(main(), **bounds)


@pytest.mark.runner(receive_s=RECEIVE_S)
async def test_a_lost_connection_ignores_reports():
    async with Service() as service:
        side, _ = await service.connect()
        side.transport.abort()
        begins(side)
        await side.until_event("lost")
        begins(side)
        whole(side)


def test_other_transports_ignore_reports():
    assert not set_receiving(asyncio.Transport(), True)
