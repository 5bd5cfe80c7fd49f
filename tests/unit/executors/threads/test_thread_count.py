"""The threads of a lane: when they start, grow and end; shutdown from everywhere; exit, fork, and a lane dropped."""

import asyncio
import concurrent.futures
import gc
import os
import subprocess
import sys
import threading
import weakref

import pytest

from penstock.config import LaneConfig
from penstock.executors.cores import Cores
from penstock.executors.threads.lane import ThreadLane
from tests.support.waiting import wait_until
from tests.unit.executors.shared import run


def names():
    """The lanes' threads and their watch; not what other tests have left, such as the one that reads metrics."""
    found = [thread.name for thread in threading.enumerate() if thread.name.startswith("penstock-")]
    return sorted(name for name in found if not name.startswith("penstock-metrics"))


@pytest.fixture
def two_cores(monkeypatch):
    monkeypatch.setattr(
        "penstock.executors.threads.lane.current_cores",
        lambda: Cores(chosen=2, affinity=2, quota_cores=None, override=None),
    )


def test_threads_start_as_work_comes_and_are_used_again(make_lane):
    lane = make_lane("db")
    assert names() == []
    for _ in range(10):
        lane.submit(int).result(20)
        wait_until(lambda: lane.statistics().workers_busy == 0)
    assert names() == ["penstock-db-0"]


def test_a_lane_starts_its_minimum_with_the_loop(make_lane, loop):
    lane = make_lane("db", min_workers=3)
    lane.start(loop)
    lane.start(loop)
    assert names() == [f"penstock-db-{n}" for n in range(3)]
    assert lane.statistics().workers_busy == 0
    assert lane.submit(threading.current_thread).result(20).name == "penstock-db-2"


def test_a_lane_of_blocked_threads_grows_to_its_limit(make_lane, plug, two_cores):
    lane = make_lane(workers=12)
    jobs = [lane.submit(plug, n) for n in range(20)]
    assert lane.statistics().workers == 6
    plug.wait_until_in(12)
    wait_until(lambda: lane.statistics().workers == 12)
    assert lane.statistics().queued == 8
    plug.pull()
    assert [job.result(20) for job in jobs] == list(range(20))


def test_a_lane_of_computing_threads_does_not_grow(make_lane, two_cores, monkeypatch):
    looks, enough = [], threading.Event()

    def computing(threads):
        looks.append(len(threads))
        if len(looks) == 4:
            enough.set()
        return 10**12 * len(looks)

    monkeypatch.setattr("penstock.executors.threads.lane.threads_cpu_ns", computing)
    lane, release = make_lane(), threading.Event()
    for _ in range(10):
        lane.submit(release.wait, 20)
    assert enough.wait(20)
    release.set()
    lane.shutdown()
    assert set(looks) == {6}


def test_threads_beyond_the_base_end_when_idle(make_lane, plug, two_cores):
    lane = make_lane(workers=9, idle_s=0.01)
    for _ in range(9):
        lane.submit(plug)
    plug.wait_until_in(9)
    plug.pull()
    wait_until(lambda: lane.statistics().workers == 6)
    assert lane.statistics().restarts["idle"] == 3
    wait_until(lambda: len(set(names()) - {"penstock-io-deadlines"}) == 6)
    assert lane.submit(int).result(20) == 0


def test_a_lane_runs_on_with_the_threads_it_could_get(make_lane, plug, monkeypatch):
    lane, start = make_lane(), threading.Thread.start
    lane.submit(plug)

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    queued = lane.submit(int, "3")
    other = make_lane()
    with pytest.raises(RuntimeError, match="can't start new thread"):
        other.submit(int)
    monkeypatch.setattr(threading.Thread, "start", start)
    plug.pull()
    assert queued.result(20) == 3
    assert other.submit(int).result(20) == 0


def test_shutdown_runs_what_is_queued_and_takes_no_more(busy, plug, loop):
    lane = busy(queue_jobs=2)

    async def main():
        jobs = [lane.call(loop, int, (str(n),)) for n in range(5)]
        lane.shutdown(wait=False)
        with pytest.raises(RuntimeError, match="lane 'io' is shut down: it takes no new jobs"):
            lane.call(loop, int, ())
        with pytest.raises(RuntimeError, match="shut down"):
            lane.submit(int)
        plug.pull()
        return await asyncio.gather(*jobs)

    assert run(loop, main()) == list(range(5))
    lane.shutdown()
    assert names() == []


def test_shutdown_cancels_what_is_not_begun_on_request(busy, plug, loop):
    lane = busy(queue_jobs=2)

    async def main():
        jobs = [lane.call(loop, int, ()) for _ in range(2)]
        waiting = lane.submit(int)
        await loop.run_in_executor(None, lambda: lane.shutdown(wait=False, cancel_futures=True))
        for job in jobs:
            with pytest.raises(asyncio.CancelledError):
                await job
        assert waiting.cancelled()
        taken = lane.statistics()
        assert (taken.queued, taken.waiting, taken.running, taken.completed["cancelled"]) == (0, 0, 1, 3)
        await loop.shutdown_default_executor()

    run(loop, main())
    plug.pull()
    lane.shutdown()
    assert lane.statistics().completed["ok"] == 1


def test_shutdown_frees_a_thread_that_waits_for_a_place(busy):
    lane, got = busy(queue_jobs=1), []
    lane.submit(int)
    caller = threading.Thread(target=lambda: got.append(lane.submit(int)))
    caller.start()
    wait_until(lambda: lane.statistics().waiting)
    lane.shutdown(wait=False, cancel_futures=True)
    caller.join(20)
    assert got[0].cancelled()


def test_shutdown_from_one_of_the_lanes_own_threads_does_not_wait_for_itself(make_lane):
    lane = make_lane(workers=2)
    lane.submit(lane.shutdown).result(20)
    lane.shutdown()
    assert names() == []


def test_shutdown_may_come_twice_and_before_any_work(make_lane):
    lane = make_lane()
    lane.shutdown()
    lane.shutdown(cancel_futures=True)
    assert names() == []


def test_shutdown_ends_the_deadline_thread(make_lane):
    lane = make_lane(timeout_s=3600.0)
    lane.submit(int).result(20)
    assert "penstock-io-deadlines" in names()
    lane.shutdown()
    assert names() == []


def test_the_deadline_thread_ends_when_nothing_comes(make_lane, monkeypatch):
    monkeypatch.setattr("penstock.executors.deadlines.LINGER_NS", 1_000_000)
    lane = make_lane(timeout_s=0.001)
    for _ in range(2):
        # on a loaded machine the job may be late, and its thread replaced
        concurrent.futures.wait([lane.submit(int)])
        wait_until(lambda: "penstock-io-deadlines" not in names())


def test_timeouts_hold_during_shutdown(busy, plug):
    lane = busy(timeout_s=0.01)
    job = lane.submit(int)
    closing = threading.Thread(target=lane.shutdown)
    closing.start()
    with pytest.raises(TimeoutError):
        job.result(20)
    plug.pull()
    closing.join(20)
    assert names() == []


def test_a_lane_that_is_dropped_ends_its_threads():
    lane = ThreadLane("gone", LaneConfig(timeout_s=3600.0))
    lane.submit(int).result(20)
    left = weakref.ref(lane)
    del lane
    wait_until(lambda: gc.collect() is not None and left() is None)
    wait_until(lambda: not [name for name in names() if name.startswith("penstock-gone")])


def test_a_dropped_lane_runs_what_it_has_taken(plug):
    lane = ThreadLane("gone", LaneConfig(workers=1))
    lane.submit(plug)
    job = lane.submit(int, "5")
    del lane
    gc.collect()
    plug.pull()
    assert job.result(20) == 5
    wait_until(lambda: not [name for name in names() if name.startswith("penstock-gone")])


def test_at_the_interpreters_exit_what_is_queued_is_run():
    code = """
import threading
from penstock.config import LaneConfig
from penstock.executors.threads.lane import ThreadLane
lane, other = ThreadLane("io", LaneConfig(workers=1, timeout_s=3600)), ThreadLane("db", LaneConfig())
begin = threading.Event()
other.submit(int).result()
lane.submit(begin.wait)
for n in range(5):
    lane.submit(print, n, flush=True)
begin.set()
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=30)
    assert (done.stdout.split(), done.stderr, done.returncode) == (list("01234"), "", 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_a_lane_without_threads_and_locks(busy, plug):
    lane = busy(timeout_s=3600.0)
    lane.submit(int)
    with lane._lock:
        child = os.fork()
        if not child:
            _exit_by(lambda: _check_in_child(lane))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    plug.pull()
    lane.shutdown()
    assert lane.statistics().completed["ok"] == 2


def _check_in_child(lane):
    taken = lane.statistics()
    assert (taken.workers, taken.queued, taken.running) == (0, 0, 0)
    assert lane.submit(int, "7").result(20) == 7
    lane.shutdown()


def _exit_by(check):
    code = 1
    try:
        check()
        code = 0
    finally:
        os._exit(code)


def test_many_callers_and_givers_up_lose_no_place(make_lane, loop):
    """Threads and a loop offer, cancel and let time run out at once; in the end nothing is left and all are counted."""
    lane = make_lane(workers=3, queue_jobs=5)
    offered = 300

    def from_thread():
        for n in range(offered):
            job = lane.submit(int)
            if n % 3 == 0:
                job.cancel()

    async def from_loop():
        jobs = [lane.call(loop, int, (), key=n % 4, timeout_s=1e-9 if n % 5 == 0 else 60.0) for n in range(offered)]
        for job in jobs[::3]:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)

    threads = [threading.Thread(target=from_thread) for _ in range(3)]
    for thread in threads:
        thread.start()
    run(loop, from_loop())
    for thread in threads:
        thread.join(20)
    lane.shutdown()
    taken = lane.statistics()
    assert (taken.queued, taken.waiting, taken.running, taken.workers) == (0, 0, 0, 0)
    assert sum(taken.completed.values()) == 4 * offered
    assert taken.completed["ok"] and taken.completed["cancelled"] and taken.completed["timeout"]
