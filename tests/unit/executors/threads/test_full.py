"""A full lane of threads: what each policy does, and that memory stays flat while a million jobs are offered."""

import asyncio
import contextvars
import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from penstock.config import LaneConfig
from penstock.errors import Overloaded
from penstock.executors.backends.adapter import ExecutorLane
from tests.unit.executors.offering import assert_memory_stays_flat, offer_from_threads

variable = contextvars.ContextVar("variable", default="unset")


def nothing():
    pass


@pytest.fixture(params=["threads", "executor"])
def any_busy(request, busy, plug):
    """`any_busy(**config)`: a lane whose one worker the plug keeps busy, ours or over another's executor."""
    if request.param == "threads":
        yield busy
        return
    made = []

    def make(**config):
        made.append(ExecutorLane("db", LaneConfig(workers=1, **config), lambda: ThreadPoolExecutor(1)))
        made[0].submit(plug)
        plug.wait_until_in()
        return made[0]

    yield make
    plug.pull()
    made[0].shutdown()


def long(full, count):
    return pytest.param(full, count, marks=[pytest.mark.once, pytest.mark.timeout(240)])


@pytest.mark.parametrize(
    ("full", "count"),
    [
        long("shed", 1_000_000),
        long("drop_oldest", 300_000),
        long("caller_runs", 300_000),
        *((full, 50_000) for full in ("shed", "drop_oldest", "caller_runs")),
    ],
)
def test_memory_stays_flat_while_a_full_lane_is_offered_more(busy, full, count):
    lane = busy(full=full, queue_jobs=100)
    seen = assert_memory_stays_flat(lambda: lane.submit(nothing), count)
    assert seen["refused"] == (count if full == "shed" else 0)
    taken = lane.statistics()
    assert taken.queued == 100
    if full == "drop_oldest":
        assert taken.shed["displaced"] >= count


def test_memory_stays_flat_for_calls_of_a_loop(busy, loop):
    lane = busy(full="shed", queue_jobs=100)
    assert assert_memory_stays_flat(lambda: lane.call(loop, nothing, ()), 200_000)["refused"] == 200_000
    lane.shutdown(wait=False, cancel_futures=True)


def test_memory_stays_flat_while_callers_wait_for_places(make_lane):
    lane = make_lane(workers=2, queue_jobs=5)
    most, done = offer_from_threads(lane, nothing, 4000, callers=8)
    assert most["queued"] <= 5
    assert most["waiting"] <= 8
    assert done == {True: 4000}


def test_cancelled_jobs_leave_nothing_behind(busy):
    lane = busy(queue_jobs=100)
    assert_memory_stays_flat(lambda: lane.submit(nothing).cancel(), 100_000)
    assert lane.statistics().queued == 0


def test_jobs_that_end_before_their_time_leave_nothing_behind(make_lane):
    lane = make_lane(timeout_s=3600.0)
    assert_memory_stays_flat(lambda: lane.submit(nothing).result(), 3000, warm_up=2000)


def test_a_full_lane_sheds(busy, plug):
    lane = busy(full="shed", queue_jobs=2)
    queued = [lane.submit(int, "5") for _ in range(2)]
    with pytest.raises(Overloaded, match=r"lane 'io' is full \(2 jobs queued, limit 2\)"):
        lane.submit(nothing)
    plug.pull()
    assert [job.result(20) for job in queued] == [5, 5]
    assert lane.statistics().shed == {"full": 1, "displaced": 0}


def test_a_full_lane_drops_the_oldest_for_a_loop_and_for_a_thread(busy, plug, loop):
    lane = busy(full="drop_oldest", queue_jobs=1)

    async def main():
        first = lane.call(loop, nothing, ())
        second = lane.submit(nothing)
        third = lane.call(loop, int, ("7",))
        with pytest.raises(Overloaded, match="displaced"):
            await first
        with pytest.raises(Overloaded, match="displaced"):
            second.result(20)
        plug.pull()
        return await third

    assert loop.run_until_complete(main()) == 7


def test_a_full_lane_lets_its_caller_run_the_job(busy, loop):
    lane = busy(full="caller_runs", queue_jobs=1)
    queued = lane.submit(nothing)
    assert lane.submit(threading.get_ident).result(0) == threading.get_ident()
    with pytest.raises(ValueError, match="invalid literal"):
        lane.submit(int, "x").result(0)

    async def main():
        inline = lane.call(loop, threading.get_ident, ())
        assert inline.done()
        return await inline

    assert loop.run_until_complete(main()) == threading.get_ident()
    assert not queued.done()
    assert lane.statistics().completed["ok"] == 2


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("of", ["thread", "loop"])
def test_what_ends_a_program_while_the_caller_runs_a_job_is_the_callers(any_busy, loop, caplog, kind, of):
    lane = any_busy(full="caller_runs", queue_jobs=1)
    lane.submit(nothing)

    def interrupted():
        raise kind

    with pytest.raises(kind):
        lane.submit(interrupted) if of == "thread" else lane.call(loop, interrupted, ())
    gc.collect()
    assert not caplog.records
    assert lane.statistics().completed["error"] == 1
    assert lane.submit(int, "4").result(0) == 4


def test_a_job_that_its_caller_runs_has_its_own_context_or_none(any_busy, loop):
    lane = any_busy(full="caller_runs", queue_jobs=1)
    lane.submit(nothing)
    given = contextvars.copy_context()
    given.run(variable.set, "given")

    def change():
        seen = variable.get()
        variable.set("changed")
        return seen

    async def main():
        variable.set("the caller's")
        return await lane.call(loop, change, (), context=given), await lane.call(loop, change, ()), variable.get()

    assert loop.run_until_complete(main()) == ("given", "unset", "the caller's")
    assert given[variable] == "changed"


def test_a_thread_blocks_until_there_is_a_place(busy, plug):
    lane = busy(queue_jobs=1)
    lane.submit(nothing)
    submitted = []
    caller = threading.Thread(target=lambda: submitted.append(lane.submit(int, "3")))
    caller.start()
    while not lane.statistics().waiting:
        pass
    assert caller.is_alive() and not submitted
    plug.pull()
    caller.join(20)
    assert submitted[0].result(20) == 3
    assert lane.statistics().waiting == 0


def test_a_loop_waits_in_line_and_is_not_blocked(busy, plug, loop):
    lane = busy(queue_jobs=1)

    async def main():
        jobs = [lane.call(loop, int, (str(n),)) for n in range(5)]
        # asyncio's own way in, which blocks where the lane is an executor as any
        jobs.append(asyncio.wrap_future(lane.submit(int, "5")))
        taken = lane.statistics()
        assert (taken.queued, taken.waiting) == (1, 5)
        plug.pull()
        return await asyncio.gather(*jobs)

    assert loop.run_until_complete(main()) == [0, 1, 2, 3, 4, 5]


def test_a_lanes_own_thread_never_waits_for_a_place(busy, make_lane):
    lane, ran_in = make_lane(workers=1, queue_jobs=1), []

    def ask_for_more():
        for _ in range(3):
            lane.submit(lambda: ran_in.append(threading.current_thread()))
        return threading.current_thread()

    own = lane.submit(ask_for_more).result(20)
    lane.shutdown()
    assert ran_in == [own] * 3


def test_callers_are_served_in_turn_by_key(busy, plug, loop):
    lane, order = busy(), []

    async def main():
        flood = [lane.call(loop, order.append, ("flood",), key="a") for _ in range(10)]
        quiet = lane.call(loop, order.append, ("quiet",), key="b")
        plug.pull()
        await asyncio.gather(quiet, *flood)

    loop.run_until_complete(main())
    assert order.index("quiet") == 1
