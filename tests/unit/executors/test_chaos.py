"""Chaos: workers are killed at random while jobs run. Every job ends exactly once, and nothing is left behind."""

import asyncio
import collections
import os
import random
import signal
import time

import pytest

import penstock
from penstock.config import LaneConfig
from penstock.errors import WorkerLost
from penstock.executors.processes.lane import ProcessLane
from tests.unit.executors import calls
from tests.unit.executors.shared import children

JOBS = 2000
# Counted in jobs: at each so many seconds, no job would ever end on a machine that takes longer to start a worker.
KILL_EVERY_JOBS, KILL_WITHIN_S = 40, 0.004
RETRIES = 2


class Killer:
    """Whenever so many jobs more have ended, some worker is killed: at once or a moment later, wherever it is then."""

    def __init__(self, loop, lane, seed):
        self.loop, self.lane, self.choose = loop, lane, random.Random(seed)
        self.ended, self.timers = 0, []

    def note_end(self, job):
        self.ended += 1
        if self.ended % KILL_EVERY_JOBS == 0:
            self.timers.append(self.loop.call_later(self.choose.uniform(0, KILL_WITHIN_S), self.kill))

    def kill(self):
        if workers := [link for link in self.lane._pool.connections if link.is_ready]:
            self.choose.choice(workers).worker.signal(signal.SIGKILL)

    def stop(self):
        for timer in self.timers:
            timer.cancel()


async def offer_all(loop, lane, log):
    killer = Killer(loop, lane, seed=3)
    work = [
        lane.call(
            loop,
            calls.note_and_spin,
            (log, number, 0.001, load(number)),
            retries=retries(number),
        )
        for number in range(JOBS)
    ]
    for job in work:
        job.add_done_callback(killer.note_end)
    found = await asyncio.gather(*work, return_exceptions=True)
    killer.stop()
    return found


def load(number):
    """Some jobs have a buffer that travels by shared memory."""
    return bytes(100_000) if number % 20 == 0 else b""


def retries(number):
    return RETRIES if number % 2 else 0


@pytest.mark.timeout(240)
@pytest.mark.parametrize("make", [penstock.new_event_loop, asyncio.new_event_loop], ids=["penstock", "asyncio"])
def test_every_job_ends_once_while_workers_are_killed_at_random(make, tmp_path):
    loop, log = make(), tmp_path / "log"
    log.touch()
    lane = ProcessLane("cpu", LaneConfig(kind="processes", workers=2, poison_kills=RETRIES + 1))
    try:
        loop.run_until_complete(asyncio.wait_for(lane.call(loop, calls.pid, ()), 20))
        fds, shared = len(os.listdir("/proc/self/fd")), set(os.listdir("/dev/shm"))
        found = loop.run_until_complete(asyncio.wait_for(offer_all(loop, lane, str(log)), 200))
        statistics = lane.statistics()
        assert statistics.restarts["crash"] >= 20
        assert (statistics.queued, statistics.running, statistics.waiting) == (0, 0, 0)
        loop.run_until_complete(settled(loop, lane))
        assert len(os.listdir("/proc/self/fd")) <= fds + 6 * 2
    finally:
        lane.close()
        loop.close()
    attempts = collections.Counter(map(int, log.read_text().split()))
    for number, outcome in enumerate(found):
        check(number, outcome, attempts[number])
    assert sum(isinstance(outcome, int) for outcome in found) > JOBS * 0.8
    # what other programs have there for a moment is none of ours
    assert within(2.0, lambda: set(os.listdir("/dev/shm")) <= shared)
    assert within(2.0, lambda: "Z" not in children().values())


async def settled(loop, lane):
    """The dead are replaced, the living are idle."""
    assert await lane.call(loop, calls.same, (1,), retries=9) == 1
    while lane._pool.starting or lane._pool._leaving:
        await asyncio.sleep(0.005)


def check(number, outcome, attempts):
    if isinstance(outcome, WorkerLost):
        assert outcome.signal == signal.SIGKILL
        assert attempts <= 1 + retries(number)
    else:
        assert outcome == number
        assert 1 <= attempts <= 1 + retries(number)


def within(seconds, is_so):
    end = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True
