"""Tests of peer timeouts: slow peers are disconnected with a reason, and peers that only seem slow are not."""

import asyncio
import socket
import time
from typing import Any

import pytest

from penstock.errors import SlowPeer
from penstock.loop.native import native_core
from penstock.pressure import expect_request, memory_statistics, set_receive_deadline
from tests.loop.wire import read_exactly, settle
from tests.unit.pressure.memory.peers import Accepted, Service, swallow

# With much less TCP itself waits, because a window opens only when half of a buffer is free.
TAKEN_BYTES = 64 * 1024
REQUEST = b"GET / HTTP/1.1\r\n\r\n"


def answer(side: Any, data: bytes) -> None:
    """Answer each whole request at once."""
    if side.data.endswith(b"\r\n\r\n"):
        side.data.clear()
        side.transport.write(b"HTTP/1.1 200 OK\r\n\r\n")


async def trickle(client: socket.socket, data: bytes = REQUEST * 100, every_s: float = 0.05) -> float:
    """Send byte by byte until the connection is lost. Return the seconds until then."""
    start_s = time.monotonic()
    try:
        for at in range(len(data)):
            await asyncio.get_running_loop().sock_sendall(client, data[at : at + 1])
            await asyncio.sleep(every_s)
            if client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                break
    except ConnectionError:
        pass
    return time.monotonic() - start_s


async def ask(client: socket.socket, count: int, every_s: float) -> int:
    """Send `count` whole requests and await the answers. Return their count."""
    for _ in range(count):
        client.send(REQUEST)
        assert await read_exactly(client, 19) == b"HTTP/1.1 200 OK\r\n\r\n"
        await asyncio.sleep(every_s)
    return count


def reason_of(side: Any) -> str:
    return side.error.reason if isinstance(side.error, SlowPeer) else repr(side.error)


def cuts(reason: str) -> int:
    return memory_statistics().disconnects[reason]


# --- receive


@pytest.mark.runner(receive_s=0.3)
async def test_a_client_that_sends_byte_by_byte_is_disconnected_and_another_is_served():
    before = cuts("receive")
    async with Service(on_data=lambda side, data: None) as slow, Service(on_data=answer) as service:
        (side, client), (other, patient) = await slow.connect(), await service.connect()
        lasted_s, served = await asyncio.gather(trickle(client), ask(patient, 10, 0.1))
        assert (reason_of(side), served) == ("receive", 10)
        assert lasted_s >= 0.3
        assert 1 <= side.error.size_bytes < 100
        assert "pressure.receive_s = 0.3" in str(side.error)
        assert "lost" not in other.events
        assert cuts("receive") == before + 1


@pytest.mark.runner(receive_s=0.3)
async def test_an_answered_request_does_not_excuse_the_next_one():
    async with Service(on_data=answer) as service:
        side, client = await service.connect()
        await ask(client, 3, 0.15)
        assert await trickle(client) >= 0.3
        assert reason_of(side) == "receive"


@pytest.mark.runner(receive_s=0.2)
async def test_a_client_that_sends_nothing_after_it_was_accepted_is_disconnected():
    async with Service() as service:
        start_s = time.monotonic()
        side, client = await service.connect()
        await side.until_event("lost")
        assert reason_of(side) == "receive"
        assert time.monotonic() - start_s >= 0.2
        with pytest.raises(ConnectionResetError):
            await asyncio.get_running_loop().sock_recv(client, 1)


@pytest.mark.runner(receive_s=0.15)
async def test_a_server_that_speaks_first_waits_for_its_client():
    async with Service(on_made=lambda side: side.transport.write(b"220 ready\r\n")) as service:
        side, client = await service.connect()
        await asyncio.sleep(0.5)
        client.send(b"HELO\r\n")
        await side.until_bytes(6)
        assert "lost" not in side.events


@pytest.mark.runner(receive_s=0.4)
async def test_a_whole_request_is_worked_on_for_as_long_as_it_takes():
    async with Service() as service:
        side, client = await service.connect()
        client.send(REQUEST[:5])
        await asyncio.sleep(0.05)
        client.send(REQUEST[5:])
        await side.until_bytes(len(REQUEST))
        await asyncio.sleep(0.8)
        side.transport.write(b"late")
        assert await read_exactly(client, 4) == b"late"
        await asyncio.sleep(0.6)
        assert "lost" not in side.events


@pytest.mark.runner(receive_s=0.5)
async def test_an_upload_at_a_decent_rate_lasts():
    async with Service() as service:
        side, client = await service.connect()
        for _ in range(16):
            client.send(b"x" * 100)
            await asyncio.sleep(0.05)
        await side.until_bytes(1600)
        assert "lost" not in side.events


@pytest.mark.runner(receive_s=0.15)
async def test_time_in_which_the_protocol_pauses_reading_does_not_count():
    async with Service(on_made=lambda side: side.transport.pause_reading()) as service:
        side, client = await service.connect()
        client.send(REQUEST[:1])
        await asyncio.sleep(0.5)
        side.transport.resume_reading()
        client.send(REQUEST[1:])
        await side.until_bytes(len(REQUEST))
        assert "lost" not in side.events


@pytest.mark.runner(receive_s=0.15, idle_s=0.3)
async def test_a_loop_that_was_busy_disconnects_no_peer_whose_bytes_have_arrived():
    async with Service() as service:
        pairs = [await service.connect() for _ in range(3)]
        for _, client in pairs:
            client.send(REQUEST)
        time.sleep(0.5)  # nothing is read meanwhile
        for side, _ in pairs:
            await side.until_bytes(len(REQUEST))
        await settle(5)
        assert not any("lost" in side.events for side, _ in pairs)


@pytest.mark.runner(idle_s=0.3)
async def test_a_write_at_the_end_of_a_long_callback_counts_from_its_end():
    async with Service() as service:
        side, _ = await service.connect()
        time.sleep(0.5)
        side.transport.write(b"at last")
        await settle(5)
        assert "lost" not in side.events


@pytest.mark.runner(receive_s=0.15, slow_reader_s=0.2)
async def test_outgoing_connections_have_no_receive_deadline():
    async with Service(on_made=lambda side: side.transport.write(b"hello")) as service:
        reader, writer = await asyncio.open_connection(*service.server.sockets[0].getsockname())
        assert await reader.readexactly(5) == b"hello"
        await asyncio.sleep(0.5)
        assert not writer.transport.is_closing()
        writer.close()
        await writer.wait_closed()


# --- reports of an integration


async def test_a_deadline_set_by_the_program_applies_to_a_silent_client():
    async with Service(on_data=lambda side, data: set_receive_deadline(side.transport, 0.2)) as service:
        side, client = await service.connect()
        client.send(REQUEST[:7])
        await side.until_event("lost")
        assert reason_of(side) == "receive"
        assert "pressure" not in str(side.error)


@pytest.mark.runner(receive_s=0.2, idle_s=0.3)
async def test_without_a_deadline_neither_timeout_applies_until_a_request_is_expected():
    async with Service(on_made=lambda side: set_receive_deadline(side.transport, None)) as service:
        side, client = await service.connect()
        await trickle(client, b"x" * 8)
        await asyncio.sleep(0.4)
        assert "lost" not in side.events
        assert expect_request(side.transport)
        await trickle(client)
        assert reason_of(side) == "receive"
        side, _ = await service.connect()
        expect_request(side.transport)
        await side.until_event("lost")
        assert side.error is None


@pytest.mark.runner(receive_s=0.15, idle_s=0.4)
async def test_a_connection_that_switches_its_protocol_sends_no_more_requests():
    async with Service() as service:
        side, client = await service.connect()
        upgraded = Accepted()
        upgraded.note("made")
        side.transport.set_protocol(upgraded)
        for _ in range(10):
            client.send(b"m")
            await asyncio.sleep(0.05)
        await upgraded.until_bytes(10)
        assert "lost" not in upgraded.events
        # a silent connection is still idle
        await upgraded.until_event("lost")
        assert upgraded.error is None
        side.note("lost")


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
async def test_an_invalid_deadline_is_refused(seconds):
    async with Service() as service:
        side, _ = await service.connect()
        with pytest.raises(ValueError, match="allowed is more than 0, or None"):
            set_receive_deadline(side.transport, seconds)


def test_other_transports_ignore_reports():
    assert not set_receive_deadline(asyncio.Transport(), 1.0)
    assert not expect_request(asyncio.Transport())


# --- idle


@pytest.mark.runner(idle_s=0.5)
async def test_a_silent_connection_is_closed_like_any_other():
    before = cuts("idle")
    async with Service(on_data=answer) as service:
        (side, client), (other, busy) = [await service.connect() for _ in range(2)]
        start_s = time.monotonic()
        await asyncio.gather(side.until_event("lost"), ask(busy, 8, 0.1))
        assert side.error is None
        assert await asyncio.get_running_loop().sock_recv(client, 1) == b""
        assert "lost" not in other.events
        assert time.monotonic() - start_s >= 0.5
        assert cuts("idle") == before + 1


@pytest.mark.runner(idle_s=0.3)
async def test_an_idle_connection_that_still_has_bytes_to_send_is_reset_with_the_reason():
    async with Service(on_made=lambda side: side.transport.write(bytes(2_000_000))) as service:
        side, client = await service.connect()
        side.transport.close()
        await side.until_event("lost")
        assert reason_of(side) == "idle"
        assert await swallow(client) < 2_000_000


@pytest.mark.runner(idle_s=0.7)
async def test_a_download_that_is_taken_slowly_is_not_idle():
    async with Service(on_made=lambda side: side.transport.write(bytes(20_000_000))) as service:
        side, client = await service.connect(TAKEN_BYTES)
        for _ in range(20):
            await asyncio.get_running_loop().sock_recv(client, TAKEN_BYTES)
            await asyncio.sleep(0.05)
        assert "lost" not in side.events


# --- slow readers


@pytest.mark.runner(slow_reader_bytes=200_000, slow_reader_s=0.3)
async def test_a_client_that_takes_nothing_is_disconnected_with_a_reason():
    before = cuts("slow_reader")
    async with Service(high_bytes=1 << 30) as service:
        (side, client), (other, taker) = [await service.connect() for _ in range(2)]
        for each in (side, other):
            each.transport.write(bytes(1_000_000))
        drained = asyncio.create_task(read_exactly(taker, 1_000_000))
        await side.until_event("lost")
        assert reason_of(side) == "slow_reader"
        assert side.error.size_bytes > 500_000
        assert side.error.late_s >= 0.3
        assert await swallow(client) < 500_000
        assert len(await drained) == 1_000_000
        assert "lost" not in other.events
        assert cuts("slow_reader") == before + 1


@pytest.mark.runner(slow_reader_bytes=200_000, slow_reader_s=0.7)
async def test_a_client_that_reads_a_little_all_the_time_is_not_disconnected():
    async with Service(high_bytes=1 << 30) as service:
        side, client = await service.connect(TAKEN_BYTES)
        side.transport.write(bytes(20_000_000))
        for _ in range(20):
            await asyncio.get_running_loop().sock_recv(client, TAKEN_BYTES)
            await asyncio.sleep(0.05)
        assert "lost" not in side.events
        assert side.transport.get_write_buffer_size() > 1_000_000


@pytest.mark.runner(slow_reader_s=0.2)
async def test_without_bytes_a_peer_is_slow_above_its_own_high_watermark():
    async with Service(high_bytes=300_000) as service:
        (side, _), (other, _) = [await service.connect() for _ in range(2)]
        side.transport.write(bytes(1_000_000))
        other.transport.write(bytes(250_000))
        await side.until_event("lost")
        assert reason_of(side) == "slow_reader"
        assert "lost" not in other.events


@pytest.mark.runner(slow_reader_s=0.2)
async def test_a_slow_reader_of_a_closing_connection_is_disconnected_too():
    async with Service() as service:
        side, _ = await service.connect()
        side.transport.write(bytes(1_000_000))
        side.transport.close()
        await side.until_event("lost")
        assert reason_of(side) == "slow_reader"


# --- off, and quiet


async def test_without_bounds_nothing_is_counted_and_nothing_wakes_the_loop():
    async with Service() as service:
        side, _ = await service.connect()
        side.transport.write(bytes(1_000_000))
        assert side.transport.get_write_buffer_size() > 0
        assert memory_statistics().buffered_bytes == 0
        assert len(native_core(side.transport._loop).wheel) == 0
        assert native_core(side.transport._loop).wheel.next_at_ns is None


def test_an_idle_connection_wakes_the_loop_only_when_something_may_be_due(make_loop):
    async def main() -> None:
        async with Service(on_data=answer) as service:
            side, client = await service.connect()
            await ask(client, 1, 0)
            await asyncio.sleep(0.35)
            polls = native_core(loop).probe.polls
            await asyncio.sleep(0.5)
            # one more for the sleep itself
            assert native_core(loop).probe.polls - polls <= 2

    loop = make_loop(receive_s=0.1, idle_s=30.0)
    loop.run_until_complete(asyncio.wait_for(main(), 20))
