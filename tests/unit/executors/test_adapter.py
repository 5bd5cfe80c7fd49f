"""A lane over somebody else's executor: bounds, order, ends told once, whoever comes first."""

import asyncio
import gc
import threading
import weakref
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ThreadPoolExecutor

import pytest

from penstock.config import LaneConfig
from penstock.errors import Overloaded, RemoteError
from penstock.executors.backends.adapter import ExecutorLane

WAIT_S = 10


class ByHand(Executor):
    """Runs nothing: the test ends each call."""

    def __init__(self):
        self.calls, self.shuts = [], []

    def submit(self, fn, /, *args, **kwargs):
        self.calls.append((Future(), fn, args))
        return self.calls[-1][0]

    def shutdown(self, wait=True, *, cancel_futures=False):
        self.shuts.append(wait)

    def run(self, index):
        future, fn, args = self.calls[index]
        future.set_running_or_notify_cancel()
        future.set_result(fn(*args))

    def names(self):
        return [args[0] for _, _, args in self.calls]


class AtOnce(ByHand):
    """Runs each call in submit."""

    def submit(self, fn, /, *args, **kwargs):
        future = super().submit(fn, *args, **kwargs)
        self.run(-1)
        return future


def same(item, **more):
    return (item, more) if more else item


def fail(problem):
    raise problem


def by_hand(**config):
    executor = ByHand()
    return executor, ExecutorLane("db", LaneConfig(executor, **config), lambda: executor)


def completed(lane):
    return {outcome: count for outcome, count in lane.statistics().completed.items() if count}


def test_a_call_from_a_loop_and_from_a_thread_gives_its_result():
    lane = ExecutorLane("db", LaneConfig(), lambda: ThreadPoolExecutor(1))

    async def main():
        loop = asyncio.get_running_loop()
        assert await lane.call(loop, same, (1,), {"fn": 2, "self": 3}) == (1, {"fn": 2, "self": 3})
        with pytest.raises(KeyError, match="gone"):
            await lane.call(loop, fail, (KeyError("gone"),))

    asyncio.run(main())
    assert lane.submit(same, 7).result(WAIT_S) == 7
    lane.shutdown()
    statistics = lane.statistics()
    assert (statistics.kind, statistics.running, statistics.run.count) == ("executor", 0, 3)
    assert completed(lane) == {"ok": 2, "error": 1}


def test_no_more_jobs_than_workers_are_with_the_executor():
    executor, lane = by_hand(workers=2)
    jobs = [lane.submit(same, name) for name in "abcd"]
    assert executor.names() == ["a", "b"]
    assert (lane.statistics().running, lane.statistics().queued) == (2, 2)
    executor.run(0)
    assert executor.names() == ["a", "b", "c"]
    for index in (1, 2, 3):
        executor.run(index)
    assert [job.result(0) for job in jobs] == list("abcd")


def test_large_arguments_wait_here_and_not_there():
    executor, lane = by_hand(workers=4, queue_bytes=100)
    for _ in range(3):
        lane.submit(same, bytes(80))
    assert len(executor.calls) == 2
    executor.run(0)
    assert len(executor.calls) == 3


def test_the_queue_is_fair_between_keys():
    executor, lane = by_hand(workers=1)

    async def main():
        loop = asyncio.get_running_loop()
        jobs = [lane.call(loop, same, (name,), key=name[0]) for name in ("a0", "a1", "a2", "b1")]
        for index in range(4):
            executor.run(index)
        assert await asyncio.gather(*jobs) == ["a0", "a1", "a2", "b1"]

    asyncio.run(main())
    assert executor.names() == ["a0", "a1", "b1", "a2"]


def test_a_full_lane_sheds():
    _, lane = by_hand(workers=1, queue_jobs=1, full="shed")
    lane.submit(same, 1)
    lane.submit(same, 2)
    with pytest.raises(Overloaded, match="'db' is full"):
        lane.submit(same, 3)
    assert lane.statistics().shed["full"] == 1


def test_a_full_lane_lets_the_caller_run_it():
    _, lane = by_hand(workers=1, queue_jobs=1, full="caller_runs")
    lane.submit(same, 1)
    lane.submit(same, 2)
    assert lane.submit(threading.get_ident).result(0) == threading.get_ident()
    assert isinstance(lane.submit(fail, KeyError(3)).exception(0), KeyError)


def test_an_exit_of_a_job_that_the_caller_runs_is_an_error_where_it_would_be_one_elsewhere():
    class Far(ExecutorLane):
        exits_are_errors = True

    lane = Far("far", LaneConfig(workers=1, queue_jobs=1, full="caller_runs"), ByHand)
    for _ in range(2):
        lane.submit(same, 1)
    with pytest.raises(RemoteError, match="SystemExit: 3"):
        lane.submit(fail, SystemExit(3)).result(0)
    with pytest.raises(KeyboardInterrupt):
        lane.submit(fail, KeyboardInterrupt())


def test_a_newer_job_displaces_the_oldest_queued():
    executor, lane = by_hand(workers=1, queue_jobs=1, full="drop_oldest")
    first, second, third = (lane.submit(same, name) for name in "abc")
    with pytest.raises(Overloaded, match="displaced"):
        second.result(0)
    executor.run(0)
    executor.run(1)
    assert (first.result(0), third.result(0)) == ("a", "c")
    assert lane.statistics().shed["displaced"] == 1


def test_a_thread_waits_for_its_place():
    executor, lane = by_hand(workers=1, queue_jobs=1)
    lane.submit(same, "a")
    lane.submit(same, "b")
    jobs, offered = [], threading.Event()

    def offer():
        jobs.append(lane.submit(same, "c"))
        offered.set()

    thread = threading.Thread(target=offer)
    thread.start()
    while lane.statistics().waiting != 1:
        pass
    assert not offered.is_set()
    executor.run(0)
    thread.join(WAIT_S)
    executor.run(1)
    executor.run(2)
    assert jobs[0].result(0) == "c"


def test_a_loops_job_waits_for_its_place_without_blocking():
    executor, lane = by_hand(workers=1, queue_jobs=1)

    async def main():
        loop = asyncio.get_running_loop()
        jobs = [lane.call(loop, same, (name,)) for name in "abc"]
        assert lane.statistics().waiting == 1
        for index in range(3):
            executor.run(index)
        assert await asyncio.gather(*jobs) == ["a", "b", "c"]

    asyncio.run(main())


def test_a_callback_that_submits_to_a_full_lane_does_not_wait_for_itself():
    executor, lane = by_hand(workers=1, queue_jobs=1)
    more = []
    lane.submit(same, "a").add_done_callback(lambda job: more.extend(lane.submit(same, name) for name in "xyz"))
    lane.submit(same, "b")
    executor.run(0)
    for index in range(1, 5):
        executor.run(index)
    assert [job.result(0) for job in more] == ["x", "y", "z"]


def test_a_queued_job_that_is_cancelled_never_runs():
    executor, lane = by_hand(workers=1)
    first, second, third = (lane.submit(same, name) for name in "abc")
    assert second.cancel()
    executor.run(0)
    assert executor.names() == ["a", "c"]
    assert completed(lane) == {"ok": 1, "cancelled": 1}


def test_a_job_that_the_executor_has_not_begun_is_cancelled_there():
    executor, lane = by_hand(workers=1)
    assert lane.submit(same, "a").cancel()
    assert executor.calls[0][0].cancelled()
    assert lane.statistics().running == 0


def test_a_running_job_that_is_cancelled_keeps_its_place_until_it_ends():
    executor, lane = by_hand(workers=1)
    first, _ = lane.submit(same, "a"), lane.submit(same, "b")
    executor.calls[0][0].set_running_or_notify_cancel()
    assert first.cancel()
    with pytest.raises(CancelledError):
        first.result(0)
    assert executor.names() == ["a"]
    executor.calls[0][0].set_result("late")
    assert executor.names() == ["a", "b"]
    assert completed(lane) == {"cancelled": 1}


def test_a_cancel_that_races_with_the_result_ends_the_job_once():
    lane = ExecutorLane("db", LaneConfig(workers=2), lambda: ThreadPoolExecutor(2))

    async def main():
        loop = asyncio.get_running_loop()
        for _ in range(300):
            jobs = [lane.call(loop, same, (index,)) for index in range(4)]
            await asyncio.sleep(0)
            jobs[0].cancel()
            jobs[3].cancel()
            ends = await asyncio.gather(*jobs, return_exceptions=True)
            assert ends[1:3] == [1, 2]
            assert all(isinstance(end, int | asyncio.CancelledError) for end in ends)

    asyncio.run(main())
    lane.shutdown()
    assert sum(completed(lane).values()) == 1200
    assert (lane.statistics().running, lane.statistics().queued) == (0, 0)


def test_time_is_up_for_queued_and_running_jobs_alike():
    executor, lane = by_hand(workers=1, timeout_s=0.02)

    async def main():
        loop = asyncio.get_running_loop()
        jobs = [lane.call(loop, same, (name,)) for name in "ab"]
        executor.calls[0][0].set_running_or_notify_cancel()
        for job in jobs:
            with pytest.raises(TimeoutError, match=r"same has not ended within 0.02 s \(its timeout\) in lane 'db'"):
                await job
        assert await_count(lane) == (1, 0)

    asyncio.run(main())
    with pytest.raises(TimeoutError, match="within"):
        lane.submit(same, "c").result(WAIT_S)
    executor.calls[0][0].set_result(None)
    assert executor.names() == ["a"]
    assert completed(lane) == {"timeout": 3}
    lane.shutdown()


def await_count(lane):
    statistics = lane.statistics()
    return statistics.running, statistics.queued


def test_an_executor_that_runs_at_once_is_no_recursion():
    executor = AtOnce()
    lane = ExecutorLane("db", LaneConfig(workers=1), lambda: executor)
    assert lane.submit(same, 0).result(0) == 0
    jobs = []
    with ThreadPoolExecutor(2) as threads:
        jobs = list(threads.map(lambda index: lane.submit(same, index), range(2000)))
    assert [job.result(WAIT_S) for job in jobs] == list(range(2000))


def test_a_result_for_a_closed_loop_is_dropped():
    executor, lane = by_hand(workers=1)
    loop = asyncio.new_event_loop()
    held = weakref.ref(lane.call(loop, same, ("a",)))
    loop.close()
    executor.run(0)
    executor.calls.clear()
    gc.collect()
    assert held() is None
    assert lane.submit(same, "b") is not None
    executor.run(0)
    lane.shutdown()


def test_what_submit_raises_is_the_jobs_end():
    class Refuses(ByHand):
        def submit(self, fn, /, *args, **kwargs):
            raise TypeError("not that")

    lane = ExecutorLane("db", LaneConfig(), Refuses)
    with pytest.raises(TypeError, match="not that"):
        lane.submit(same, 1).result(0)


def test_a_broken_executor_is_made_anew():
    class Breaks(ByHand):
        def submit(self, fn, /, *args, **kwargs):
            if self is made[0]:
                raise BrokenExecutor("broken")
            return super().submit(fn, *args, **kwargs)

    made = []
    lane = ExecutorLane("db", LaneConfig(), lambda: made.append(Breaks()) or made[-1])
    job = lane.submit(same, 1)
    made[1].run(0)
    assert job.result(0) == 1
    assert made[0].shuts == [False]


def test_shutdown_lets_queued_jobs_run_to_their_end():
    executor = ThreadPoolExecutor(1)
    lane = ExecutorLane("db", LaneConfig(workers=1), lambda: executor)
    gate = threading.Event()
    jobs = [lane.submit(gate.wait, WAIT_S), *(lane.submit(same, index) for index in range(5))]
    lane.shutdown(wait=False)
    with pytest.raises(RuntimeError, match="'db' is shut down"):
        lane.submit(same, 1)
    gate.set()
    lane.shutdown()
    assert [job.result(0) for job in jobs] == [True, 0, 1, 2, 3, 4]
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(same, 1)


def test_shutdown_cancels_what_has_not_begun():
    executor, lane = by_hand(workers=1)

    async def main():
        loop = asyncio.get_running_loop()
        running, queued = (lane.call(loop, same, (name,)) for name in "ab")
        executor.calls[0][0].set_running_or_notify_cancel()
        lane.shutdown(wait=False, cancel_futures=True)
        with pytest.raises(asyncio.CancelledError):
            await queued
        assert executor.shuts == []
        executor.calls[0][0].set_result("done")
        assert await running == "done"

    asyncio.run(main())
    assert executor.shuts == [False]
    lane.shutdown()
    assert executor.shuts == [False, True]
    assert completed(lane) == {"ok": 1, "cancelled": 1}


def test_an_executor_that_nobody_used_is_not_made_to_be_shut():
    lane = ExecutorLane("db", LaneConfig(), lambda: pytest.fail("made"))
    lane.shutdown()
