"""Tests of the buffer budget with real connections: the heaviest are paused, and every byte is counted."""

import asyncio
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock._core.limits.budget import shared_budget
from penstock.loop import EventLoop
from penstock.pressure import bound_memory, memory_statistics
from tests.loop.wire import Recorder, read_exactly, settle, socket_pair
from tests.unit.pressure.memory.peers import Service, swallow

BUDGET_BYTES = 4_000_000
CHUNK_BYTES = 16_384
NEVER_PAUSED_BYTES = 1 << 30
steady = settings(derandomize=True, deadline=None, max_examples=25, database=None)


def push(side) -> None:
    """Write until the transport pauses the protocol, up to 64 MB."""
    written = 0
    while not side.is_paused and written < 64_000_000:
        side.transport.write(b"x" * CHUNK_BYTES)
        written += CHUNK_BYTES


def echo(side, data: bytes) -> None:
    side.transport.write(data)


@pytest.mark.runner(buffer_bytes=BUDGET_BYTES)
async def test_a_hundred_clients_that_never_read_fill_the_budget_and_others_are_served():
    async with Service(on_made=push, high_bytes=NEVER_PAUSED_BYTES) as stuck, Service(on_data=echo) as live:
        for _ in range(100):
            await stuck.connect()
        assert BUDGET_BYTES < shared_budget().total <= BUDGET_BYTES + 101 * CHUNK_BYTES
        assert memory_statistics().paused >= 1
        sides = [await live.connect() for _ in range(5)]
        for size_bytes in [10, 1000, 100_000] * 5:
            for _, client in sides:
                await asyncio.get_running_loop().sock_sendall(client, b"y" * size_bytes)
                assert len(await read_exactly(client, size_bytes)) == size_bytes
        assert shared_budget().total <= BUDGET_BYTES + 106 * CHUNK_BYTES
        assert all(side.is_paused for side in stuck.sides)


@pytest.mark.runner(buffer_bytes=BUDGET_BYTES)
async def test_the_heaviest_is_paused_below_its_own_watermark_and_not_read_until_there_is_room():
    async with Service(high_bytes=NEVER_PAUSED_BYTES) as service:
        (heavy, one), (middle, other), (light, third) = [await service.connect() for _ in range(3)]
        heavy.transport.write(b"h" * 2_500_000)
        middle.transport.write(b"m" * 1_200_000)
        assert not heavy.is_paused
        light.transport.write(b"l" * 600_000)
        await heavy.until_event("pause")
        assert (middle.is_paused, light.is_paused) == (False, False)
        assert memory_statistics().paused == 1
        for client in (one, other, third):
            client.send(b"more")
        await middle.until_bytes(4)
        await light.until_bytes(4)
        await settle()
        assert not heavy.data
        # the peer reads, so the total falls below the low mark
        await read_exactly(one, 1_500_000)
        await heavy.until_event("resume")
        await heavy.until_bytes(4)
        assert memory_statistics().paused == 0
        assert heavy.events == ["made", "pause", "resume", "data"]
        assert middle.events == light.events == ["made", "data"]


@pytest.mark.runner(buffer_bytes=BUDGET_BYTES)
async def test_the_writer_that_passes_the_mark_is_paused_within_its_own_write():
    async with Service(high_bytes=NEVER_PAUSED_BYTES) as service:
        side, _ = await service.connect()
        side.transport.write(b"x" * 5_000_000)
        assert side.events == ["made", "pause"]


@pytest.mark.runner(buffer_bytes=BUDGET_BYTES)
async def test_a_paused_connection_above_its_own_watermark_waits_for_its_own_low_one():
    async with Service(high_bytes=1_000_000) as service:
        (side, client), (other, _) = [await service.connect() for _ in range(2)]
        side.transport.write(b"x" * 3_500_000)
        other.transport.write(b"x" * 900_000)
        assert side.events == ["made", "pause"]
        await read_exactly(client, 1_700_000)
        await settle()
        assert memory_statistics().paused == 0
        assert side.events == ["made", "pause"]
        await asyncio.gather(read_exactly(client, 1_800_000), side.until_event("resume"))
        assert side.events == ["made", "pause", "resume"]


def test_bytes_that_the_kernel_takes_within_the_turn_pause_no_writer(run):
    async def main() -> None:
        ours, peer = socket_pair("tcp")
        transport, side = await asyncio.get_running_loop().connect_accepted_socket(Recorder, ours)
        for _ in range(10):
            transport.write(b"x" * 100)
        await settle()
        assert (side.events, memory_statistics().pauses) == (["made"], before)
        transport.abort()
        peer.close()
        await side.until_event("lost")

    before = memory_statistics().pauses
    run(main(), buffer_bytes=150)


@pytest.mark.runner(buffer_bytes=BUDGET_BYTES)
async def test_an_aborted_connection_releases_its_bytes_and_the_others_resume():
    async with Service(high_bytes=NEVER_PAUSED_BYTES) as service:
        (one, _), (other, _) = [await service.connect() for _ in range(2)]
        one.transport.write(b"x" * 3_000_000)
        other.transport.write(b"x" * 2_900_000)
        assert other.is_paused or one.is_paused
        one.transport.abort()
        await one.until_event("lost")
        await settle()
        assert not other.is_paused
        assert shared_budget().total == other.transport.get_write_buffer_size()


def test_loops_of_several_threads_share_the_budget_and_each_pauses_its_own(make_loop):
    paused_in: list[int] = []
    ready, done = threading.Event(), threading.Event()

    def on_thread() -> None:
        async def heavy() -> None:
            async with Service(high_bytes=NEVER_PAUSED_BYTES) as service:
                side, _ = await service.connect()
                side.transport.write(b"x" * 3_000_000)
                assert not side.is_paused
                ready.set()
                await side.until_event("pause")
                paused_in.append(threading.get_ident())
                done.set()

        loop.run_until_complete(asyncio.wait_for(heavy(), 20))

    async def light() -> None:
        async with Service(high_bytes=NEVER_PAUSED_BYTES) as service:
            side, _ = await service.connect()
            side.transport.write(b"x" * 1_500_000)
            await asyncio.to_thread(done.wait, 20)
            assert not side.is_paused

    loop = make_loop(buffer_bytes=BUDGET_BYTES)
    mine = make_loop(buffer_bytes=BUDGET_BYTES)
    thread = threading.Thread(target=on_thread)
    thread.start()
    assert ready.wait(20)
    mine.run_until_complete(asyncio.wait_for(light(), 20))
    mine.run_until_complete(mine.shutdown_default_executor())
    thread.join()
    assert paused_in == [thread.ident]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["write", "write", "write", "lines", "read", "close", "abort", "eof", "reset", "turn"]),
        st.integers(0, 5),
        st.integers(0, 400_000),
    ),
    max_size=40,
)


@steady
@given(STEPS)
def test_the_total_is_exactly_what_the_queues_hold_whatever_is_done(steps: list[tuple[str, int, int]]) -> None:
    async def main() -> None:
        loop, sides, peers = asyncio.get_running_loop(), [], []
        for _ in range(6):
            ours, peer = socket_pair("unix")
            _, side = await loop.connect_accepted_socket(Recorder, ours)
            sides.append(side)
            peers.append(peer)
        for step, name, size_bytes in steps:
            side, peer = sides[name], peers[name]
            if step == "turn":
                await settle(1)
            elif step == "reset":
                peer.close()
            elif step == "read" and peer.fileno() >= 0:
                try:
                    peer.recv(size_bytes + 1)
                except OSError:
                    pass
            elif not side.transport.is_closing() and "eof written" not in side.events:
                if step == "write":
                    side.transport.write(bytes(size_bytes))
                elif step == "lines":
                    side.transport.writelines([bytes(size_bytes // 3)] * 3)
                elif step == "eof":
                    side.events.insert(0, "eof written")
                    try:
                        side.transport.write_eof()
                    except OSError:
                        pass
                else:
                    getattr(side.transport, step)()
            # a lost connection has an empty buffer
            assert shared_budget().total == sum(side.transport.get_write_buffer_size() for side in sides)
        readers = [asyncio.create_task(swallow(peer)) for peer in peers if peer.fileno() >= 0]
        for side in sides:
            if not side.transport.is_closing():
                side.transport.close()
            await side.until_event("lost")
        await asyncio.gather(*readers)
        for peer in peers:
            peer.close()
        assert (shared_budget().total, shared_budget().paused_now) == (0, 0)

    loop = EventLoop()
    bound_memory(loop, buffer_bytes=700_000)
    try:
        loop.run_until_complete(asyncio.wait_for(main(), 20))
    finally:
        loop.close()
        shared_budget().set_marks(None)
