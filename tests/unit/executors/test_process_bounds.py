"""A process lane is bounded, in jobs and in bytes, and does what its config says when full."""

import asyncio
import contextlib
import os
import pathlib
import threading

import pytest

import penstock
from penstock.config import Config, LaneConfig, TasksConfig
from penstock.errors import Overloaded, RemoteError
from penstock.executors.counters import LaneCounters
from penstock.executors.processes.lane import ProcessLane
from tests.support.waiting import until
from tests.unit.executors import calls
from tests.unit.executors.offering import assert_memory_stays_flat, offer_from_threads
from tests.unit.executors.shared import run

LARGE = 300_000


def test_a_full_lane_sheds_before_it_builds_anything(loop, lane, tmp_path):
    cpu, made = lane(queue_jobs=2, full="shed")

    async def main():
        gate = str(tmp_path / "gate")
        first = cpu(calls.wait_for, gate)
        await until(lambda: made.statistics().running == 1)
        queued = [cpu(calls.same, 1), cpu(calls.same, 2)]
        with pytest.raises(Overloaded, match="2 jobs queued, limit 2") as caught:
            cpu(calls.same, threading.Lock())
        assert caught.value.reason == "full"
        pathlib.Path(gate).touch()
        assert await asyncio.gather(*queued) == [1, 2]
        await first

    run(loop, main())
    assert made.statistics().shed["full"] == 1


async def test_a_full_lane_lets_callers_wait_and_builds_nothing_for_them(loop, lane, tmp_path):
    cpu, made = lane(queue_jobs=2, full="wait")

    gate = str(tmp_path / "gate")
    first = cpu(calls.wait_for, gate)
    await until(lambda: made.statistics().running == 1)
    work = [cpu(calls.same, number) for number in range(20)]
    assert (made.statistics().queued, made.statistics().waiting) == (2, 18)
    assert sum(job.payload is not None for job in work) == 2
    pathlib.Path(gate).touch()
    assert await asyncio.gather(*work) == list(range(20))
    await first


def test_the_oldest_makes_room(loop, lane, tmp_path):
    cpu, made = lane(queue_jobs=2, full="drop_oldest")

    async def main():
        gate = str(tmp_path / "gate")
        first = cpu(calls.wait_for, gate)
        await until(lambda: made.statistics().running == 1)
        work = [cpu(calls.same, number) for number in range(4)]
        pathlib.Path(gate).touch()
        found = await asyncio.gather(*work, return_exceptions=True)
        await first
        return found

    found = run(loop, main())
    assert [type(item) for item in found[:2]] == [Overloaded, Overloaded]
    assert found[2:] == [2, 3]
    assert found[0].reason == "displaced"


async def test_the_caller_runs_what_finds_no_place(loop, lane, tmp_path):
    cpu, made = lane(queue_jobs=1, full="caller_runs")

    gate = str(tmp_path / "gate")
    first = cpu(calls.wait_for, gate)
    await until(lambda: made.statistics().running == 1)
    queued = cpu(calls.pid)
    assert await cpu(calls.pid) == os.getpid()
    pathlib.Path(gate).touch()
    assert await queued != os.getpid()
    await first


def test_what_the_caller_runs_leaves_its_context_and_its_loop_alone(loop, lane, tmp_path):
    cpu, made = lane(queue_jobs=1, full="caller_runs")

    async def main():
        gate = str(tmp_path / "gate")
        first = cpu(calls.wait_for, gate)
        await until(lambda: made.statistics().running == 1)
        queued = cpu(calls.pid)
        calls.request_id.set("mine")
        await cpu(calls.set_context, "theirs")
        assert calls.request_id.get() == "mine"
        with pytest.raises(RemoteError, match="SystemExit: 4"):
            await cpu(calls.leave)
        with pytest.raises(KeyboardInterrupt):
            cpu(calls.interrupt)
        pathlib.Path(gate).touch()
        await asyncio.gather(first, queued)

    run(loop, main())
    assert made.statistics().queued == made.statistics().running == 0


@pytest.mark.parametrize("fn", [calls.leave, calls.interrupt, calls.pid], ids=lambda fn: fn.__name__)
def test_a_job_that_the_caller_runs_ends_however_its_call_ends(loop, lane, tmp_path, monkeypatch, fn):
    cpu, made = lane(queue_jobs=1, full="caller_runs")
    ran = []
    run_in_caller = made._run_in_caller
    monkeypatch.setattr(made, "_run_in_caller", lambda job: ran.append(job) or run_in_caller(job))

    async def main():
        gate = str(tmp_path / "gate")
        first = cpu(calls.wait_for, gate)
        await until(lambda: made.statistics().running == 1)
        queued = cpu(calls.pid)
        with contextlib.suppress(BaseException):
            await cpu(fn)
        (job,) = ran
        assert job.done()
        assert job.cancelled() or job.exception() is None or isinstance(job.exception(), Exception)
        pathlib.Path(gate).touch()
        await asyncio.gather(first, queued)

    run(loop, main())


def test_threads_that_run_jobs_themselves_count_them_in_the_home_loops_thread(loop, lane, tmp_path, monkeypatch):
    cpu, made = lane(queue_jobs=1, full="caller_runs")
    counted_in = []
    ended = LaneCounters.ended

    def note(counters, outcome):
        # the threads themselves may be those of another lane
        if counters is made._counters:
            counted_in.append(threading.get_ident())
        ended(counters, outcome)

    monkeypatch.setattr(LaneCounters, "ended", note)

    async def main():
        gate = str(tmp_path / "gate")
        first = cpu(calls.wait_for, gate)
        await until(lambda: made.statistics().running == 1)
        queued = cpu(calls.pid)
        await asyncio.gather(*(asyncio.to_thread(lambda: made.submit(calls.pid).result(20)) for _ in range(40)))
        pathlib.Path(gate).touch()
        await asyncio.gather(first, queued)

    run(loop, main())
    assert made.statistics().completed["ok"] == 42
    assert set(counted_in) == {threading.get_ident()}


def test_threads_that_run_jobs_themselves_count_under_the_lock_once_the_home_loop_is_closed(lane):
    _, made = lane()
    is_locked = []
    threads = [
        threading.Thread(target=made._count, args=(lambda: is_locked.append(made._lock.locked()),)) for _ in "ab"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert is_locked == [True, True]


async def test_bytes_are_bounded_too(loop, lane, tmp_path):
    cpu, made = lane(queue_bytes=LARGE, full="shed")

    gate = str(tmp_path / "gate")
    first = cpu(calls.wait_for, gate)
    await until(lambda: made.statistics().running == 1)
    queued = cpu(calls.size, bytes(LARGE))
    with pytest.raises(Overloaded, match=f"limit {LARGE}"):
        cpu(calls.same, 1)
    pathlib.Path(gate).touch()
    assert await queued == LARGE
    await first


@pytest.mark.timeout(240)
def test_memory_stays_flat_while_a_full_lane_is_offered_a_million_jobs(tmp_path):
    # a million offers are a stall: a watchdog would tell of it, and keep the lines of the stack
    loop = penstock.new_event_loop(Config(tasks=TasksConfig(stall_s=None)))
    lane = ProcessLane("cpu", LaneConfig(kind="processes", workers=1, queue_jobs=100, full="shed"))
    gate = tmp_path / "gate"
    load = bytes(1000)

    async def main():
        first = lane.call(loop, calls.wait_for, (str(gate),))
        await until(lambda: lane.statistics().running == 1)
        queued = [lane.call(loop, calls.size, (load,)) for _ in range(100)]
        seen = assert_memory_stays_flat(lambda: lane.call(loop, calls.size, (load,)), 1_000_000)
        gate.touch()
        await first
        assert await asyncio.gather(*queued) == [1000] * 100
        return seen

    try:
        assert run(loop, main(), patience_s=200)["refused"] == 1_000_000
        assert lane.statistics().shed["full"] >= 1_000_000
    finally:
        lane.close()
        loop.close()


def test_memory_stays_flat_while_threads_wait_for_places_in_a_full_lane():
    lane = ProcessLane("cpu", LaneConfig(kind="processes", workers=2, queue_jobs=5))
    most, done = offer_from_threads(lane, calls.pid, 4000, callers=8)
    assert most["queued"] <= 5
    assert done == {True: 4000}
