"""The poll policy's settings: whatever they are, timers fire, posts arrive and sockets are read."""

import asyncio
import signal
import socket
import threading
import time

import pytest

from penstock.config import LoopConfig
from penstock.loop import EventLoop

POLICIES = [
    LoopConfig(poll_every_turns=1),
    LoopConfig(poll_every_us=0),
    LoopConfig(spin_us=2000),
    LoopConfig(spin_us=200, poll_every_turns=1000, poll_every_us=10_000),
]


@pytest.fixture(params=POLICIES, ids=str)
def loop(request):
    loop = EventLoop(request.param)
    yield loop
    loop.close()


def test_timers_posts_and_sockets_are_all_served(loop):
    async def main():
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours)
        posted = asyncio.Event()
        thread = threading.Thread(target=loop.call_soon_threadsafe, args=(posted.set,))
        thread.start()
        await posted.wait()
        thread.join()
        theirs.send(b"data")
        received = await reader.read(100)
        began_s = loop.time()
        await asyncio.sleep(0.002)
        writer.close()
        theirs.close()
        return received, loop.time() - began_s >= 0.002

    assert loop.run_until_complete(main()) == (b"data", True)


def test_a_busy_ready_queue_does_not_starve_a_socket(loop):
    async def main():
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours)

        def again():
            if not reader.at_eof():
                loop.call_soon(again)

        again()
        theirs.close()
        received = await reader.read()
        writer.close()
        return received

    assert loop.run_until_complete(main()) == b""


def test_a_wait_takes_no_cpu_time_unless_told_to_spin():
    with asyncio.Runner(loop_factory=EventLoop) as runner:
        runner.run(asyncio.sleep(0))
        began_s = time.process_time()
        runner.run(asyncio.sleep(0.2))
        assert time.process_time() - began_s < 0.1


def test_a_signal_handler_that_stops_the_loop_stops_it_before_it_waits(loop):
    former = signal.signal(signal.SIGUSR1, lambda *_: loop.stop())
    try:
        # a C function raises the signal: Python's handler runs in the loop's own check, just before it would block
        loop.call_soon(signal.raise_signal, signal.SIGUSR1)
        loop.run_forever()
    finally:
        signal.signal(signal.SIGUSR1, former)


def test_timers_within_the_slack_fire_in_order_none_early_after_one_wait():
    loop = EventLoop(LoopConfig(timer_slack_us=1_000_000))
    probe = loop._native_core.probe
    probe.set_level(2)
    fired = []
    start_s = loop.time() + 0.02
    try:
        for number in range(10):
            loop.call_at(start_s + number / 1000, lambda number=number: fired.append((number, loop.time())))
        loop.call_at(start_s + 0.01, loop.stop)
        loop.run_forever()
    finally:
        loop.close()
    assert [number for number, _ in fired] == list(range(10))
    assert all(at_s >= start_s + number / 1000 for number, at_s in fired)
    assert probe.polls <= 1
