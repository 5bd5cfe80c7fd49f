"""A lane of threads: calls from loops and threads, cancellation and timeouts in every state of a job."""

import asyncio
import concurrent.futures
import contextvars
import gc
import threading
import time
import traceback
import weakref
from unittest import mock

import pytest

from penstock.executors.call import Call
from penstock.executors.job import ThreadJob
from tests.support.waiting import wait_until
from tests.unit.executors.shared import run

VARIABLE = contextvars.ContextVar("variable", default="none")


def fail(kind, *args):
    raise kind(*args)


def test_a_call_from_a_loop_gives_its_result(make_lane, loop):
    lane = make_lane()

    async def main():
        return await lane.call(loop, sorted, ([2, 1],), {"reverse": True}), await lane.call(loop, int, ("4",))

    assert run(loop, main()) == ([2, 1], 4)


def test_a_call_from_a_thread_gives_its_result(make_lane):
    lane = make_lane()
    assert lane.submit(int, "11", base=2).result(20) == 3
    assert list(lane.map(abs, [-1, 2])) == [1, 2]
    assert [job.result() for job in concurrent.futures.as_completed([lane.submit(int)], timeout=20)] == [0]


def test_the_lane_is_an_executor_for_asyncio(make_lane, loop):
    lane = make_lane()

    async def main():
        return await loop.run_in_executor(lane, threading.current_thread)

    assert run(loop, main()).name == "penstock-io-0"


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt])
def test_an_exception_comes_back_whatever_it_is(make_lane, kind):
    lane = make_lane(workers=1)
    with pytest.raises(kind, match="why"):
        lane.submit(fail, kind, "why").result(20)
    assert lane.submit(int).result(20) == 0
    assert lane.statistics().completed["error"] == 1


def test_an_exception_comes_to_a_loop_with_its_own_traceback_only(make_lane, loop):
    lane = make_lane()

    async def main():
        await lane.call(loop, fail, (ValueError, "why"))

    with pytest.raises(ValueError, match="why") as caught:
        run(loop, main())
    assert traceback.extract_tb(caught.tb)[-1].name == "fail"
    assert "_run" not in [frame.name for frame in traceback.extract_tb(caught.tb)]


def test_a_stop_iteration_does_not_hang_its_caller(make_lane, loop):
    lane = make_lane()

    async def main():
        await lane.call(loop, next, (iter(()),))

    with pytest.raises(RuntimeError, match="StopIteration"):
        run(loop, main())


def test_a_job_runs_in_the_context_it_is_given(make_lane, loop):
    lane, context = make_lane(), contextvars.copy_context()
    context.run(VARIABLE.set, "given")

    async def main():
        return await lane.call(loop, VARIABLE.get, (), context=context), await lane.call(loop, VARIABLE.get, ())

    assert run(loop, main()) == ("given", "none")


class Weighty:
    """Something one can hold a weak reference to."""


@pytest.mark.parametrize("call", [id, int], ids=["returns", "raises"])
def test_an_idle_thread_holds_on_to_nothing(make_lane, loop, call):
    lane, argument = make_lane(), Weighty()
    left = weakref.ref(argument)

    async def main(argument):
        await asyncio.wait([lane.call(loop, call, (argument,))])

    gc.disable()
    try:
        run(loop, main(argument))
        del argument
        wait_until(lambda: left() is None)
    finally:
        gc.enable()


def test_a_queued_call_that_is_cancelled_never_runs(busy, plug, loop):
    lane, ran = busy(), []

    async def main():
        job = lane.call(loop, ran.append, (1,))
        assert lane.statistics().queued == 1
        assert job.cancel()
        assert lane.statistics().queued == 0
        with pytest.raises(asyncio.CancelledError):
            await job
        assert job.call.args == ()

    run(loop, main())
    thread_job = lane.submit(ran.append, 2)
    assert thread_job.cancel()
    assert lane.statistics().completed["cancelled"] == 2
    plug.pull()
    lane.shutdown()
    assert ran == []


async def test_a_waiting_call_that_is_cancelled_leaves_the_line(busy, loop):
    lane = busy(queue_jobs=1)

    lane.call(loop, int, ())
    job = lane.call(loop, int, ())
    assert lane.statistics().waiting == 1
    job.cancel()
    assert lane.statistics().waiting == 0


async def test_a_cancelled_job_makes_room_for_one_that_waits(busy, loop):
    lane = busy(queue_jobs=1)

    queued, waiting = lane.call(loop, int, ()), lane.call(loop, int, ())
    queued.cancel()
    taken = lane.statistics()
    assert (taken.queued, taken.waiting) == (1, 0)
    waiting.cancel()


def test_a_running_job_that_is_cancelled_answers_at_once_and_counts_until_it_returns(make_lane, plug, loop):
    lane = make_lane(workers=2)

    async def main():
        job = lane.call(loop, plug, ())
        other = lane.submit(plug)
        plug.wait_until_in(2)
        assert other.running()
        assert job.cancel() and other.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        taken = lane.statistics()
        assert (taken.running, taken.completed["cancelled"]) == (2, 2)

    run(loop, main())
    plug.pull()
    wait_until(lambda: lane.statistics().running == 0)
    taken = lane.statistics()
    assert taken.completed == {"ok": 0, "error": 0, "timeout": 0, "cancelled": 2, "worker_lost": 0}
    assert taken.run.count == 2


def test_a_job_that_is_done_but_not_delivered_can_be_cancelled(make_lane, loop):
    lane = make_lane()

    async def main():
        job = lane.call(loop, int, ())
        wait_until(lambda: lane.statistics().completed["ok"] == 1)
        assert not job.done() and job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job

    run(loop, main())
    assert lane.statistics().completed["cancelled"] == 0


def test_a_signals_handler_that_cancels_inside_the_lane_does_not_hang(busy, loop):
    """asyncio's handler of Ctrl-C cancels the main task between any two bytecodes, perhaps while the lane is locked."""
    lane = busy()

    async def main():
        job = lane.call(loop, int, ())
        with lane._lock:
            job.cancel()
        assert lane.statistics().queued == 0
        again = lane.call(loop, int, ())
        with lane._lock:
            again.cancel()
        lane.call(loop, int, ()).cancel()
        assert not lane._cancelled

    run(loop, main())
    assert lane.statistics().completed["cancelled"] == 3


def test_a_job_cancelled_while_another_is_refused_is_not_forgotten(busy):
    lane = busy()
    queued = lane.submit(int)

    class Key:
        def __hash__(self):
            queued.cancel()
            raise TypeError("no hash")

    with pytest.raises(TypeError, match="no hash"):
        lane._offer(ThreadJob(Call(int, key=Key())))
    assert not lane._cancelled
    assert lane.statistics().queued == 0


def test_a_queued_job_whose_time_is_up_never_runs(busy, plug, loop):
    lane, ran = busy(), []

    async def main():
        job = lane.call(loop, ran.append, (1,), timeout_s=0.005)
        with pytest.raises(
            TimeoutError, match=r"has not begun within 0\.005 s \(its timeout\) in lane 'io': its workers are busy"
        ):
            await job
        assert lane.statistics().queued == 0

    run(loop, main())
    plug.pull()
    lane.shutdown()
    assert ran == []
    assert lane.statistics().completed["timeout"] == 1


def test_a_running_job_whose_time_is_up_answers_at_once(make_lane, plug, loop):
    # its thread begins within that, on a busy machine too
    lane = make_lane(workers=2, timeout_s=0.2)

    async def main():
        with pytest.raises(
            TimeoutError, match=r"has not ended within 0\.2 s \(its timeout\); its thread in lane 'io' runs on"
        ):
            await lane.call(loop, plug, ())

    run(loop, main())
    with pytest.raises(TimeoutError):
        lane.submit(plug).result(20)
    assert lane.statistics().running == 2
    plug.pull()
    lane.shutdown()
    assert lane.statistics().completed["timeout"] == 2
    assert lane.statistics().completed["ok"] == 0


def test_a_waiting_callers_time_can_be_up(busy):
    lane = busy(queue_jobs=1, timeout_s=0.005)
    jobs = [lane.submit(int), lane.submit(int)]
    for job in jobs:
        with pytest.raises(TimeoutError, match="not begun"):
            job.result(20)
    taken = lane.statistics()
    assert (taken.queued, taken.waiting) == (0, 0)


def test_a_job_offered_too_late_never_runs(make_lane, loop):
    lane, ran = make_lane(), []

    async def main():
        with pytest.raises(TimeoutError, match="its time was up before it was offered to lane"):
            await lane.call(loop, ran.append, (1,), timeout_s=0.0)

    run(loop, main())
    assert ran == []


def test_times_longer_than_any_clock_have_no_end(make_lane):
    lane = make_lane(idle_s=1e9, timeout_s=1e9)
    assert lane.submit(int, "4").result(20) == 4
    assert lane.options(timeout=1e300).submit(int, "5").result(20) == 5


def test_jobs_that_are_in_time_cost_the_deadline_thread_nothing(make_lane, loop):
    lane, watches = make_lane(), set()
    looks = mock.Mock(wraps=lane._deadlines.expired)
    lane._deadlines = mock.Mock(wraps=lane._deadlines, expired=looks)

    async def main():
        for _ in range(200):
            await lane.call(loop, int, (), timeout_s=30)
            watches.update(thread for thread in threading.enumerate() if thread.name == "penstock-io-deadlines")

    run(loop, main())
    assert (len(watches), looks.call_count) == (1, 0)


def test_a_result_for_a_closed_loop_is_let_go(make_lane, plug, loop):
    lane = make_lane(workers=1)
    lane.call(loop, plug, ())
    plug.wait_until_in()
    loop.close()
    plug.pull()
    assert lane.submit(int).result(20) == 0


def test_a_callback_that_raises_what_it_should_not_costs_no_thread(make_lane, plug, caplog):
    lane = make_lane(workers=1)
    job = lane.submit(plug)
    job.add_done_callback(lambda _: fail(SystemExit, "from a callback"))
    plug.pull()
    assert lane.submit(int).result(20) == 0
    assert "could not be delivered" in caplog.text


def test_a_slow_callback_delays_no_other_job(make_lane, plug):
    lane, release, inside = make_lane(workers=2), threading.Event(), threading.Event()
    lane.submit(plug).add_done_callback(lambda _: (inside.set(), release.wait(20)))
    plug.pull()
    assert inside.wait(20)
    assert [lane.submit(int).result(20) for _ in range(20)] == [0] * 20
    assert lane.statistics().workers_busy >= 1
    release.set()


def test_jobs_are_counted_and_timed(make_lane, loop):
    lane = make_lane("db", workers=3, queue_jobs=7)

    async def main():
        await asyncio.gather(*(lane.call(loop, time.sleep, (0.001,)) for _ in range(5)))

    run(loop, main())
    taken = lane.statistics()
    assert (taken.name, taken.kind, taken.workers_limit, taken.queue_limit) == ("db", "threads", 3, 7)
    assert (taken.workers, taken.workers_busy, taken.running, taken.queued) == (3, 0, 0, 0)
    assert taken.completed["ok"] == taken.wait.count == taken.run.count == 5
    assert taken.run.p50_s >= 0.00095
