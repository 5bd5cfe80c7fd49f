"""The process lane: calls, results, failures, worker loss, cancellation, recycling. On penstock's and asyncio's loop."""

import array
import asyncio
import concurrent.futures
import functools
import gc
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

import penstock
from penstock.config import LaneConfig
from penstock.errors import (
    Overloaded,
    PoisonJob,
    RemoteError,
    UnpicklableError,
    WorkerLost,
    WorkerStartError,
)
from penstock.executors.processes import ProcessLane
from tests.unit.executors import calls

ROOT = pathlib.Path(__file__).parents[3]
LARGE = 300_000


@pytest.fixture(params=["penstock", "asyncio"])
def loop(request):
    made = penstock.new_event_loop() if request.param == "penstock" else asyncio.new_event_loop()
    yield made
    made.close()


@pytest.fixture
def lane(loop):
    """Makes lanes on the loop; they are closed, and leave no process and no descriptor, at the end."""
    before = len(os.listdir("/proc/self/fd"))
    made = []

    def make(**options):
        made.append(ProcessLane("cpu", LaneConfig(**{"kind": "processes", "workers": 1, **options})))
        return functools.partial(call, loop, made[-1]), made[-1]

    yield make
    for each in made:
        pids = [link.pid for link in each._crew.links]
        each.close()
        assert not [pid for pid in pids if os.path.exists(f"/proc/{pid}") and not is_zombie(pid)]
    # the forkserver and the resource tracker, both multiprocessing's, come with the first worker and stay
    assert len(os.listdir("/proc/self/fd")) <= before + 4


def is_zombie(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] == "Z"
    except OSError:
        return True


def call(loop, lane, fn, *args, **options):
    return lane.call(loop, fn, args, options.pop("kwargs", None), **options)


def run(loop, work):
    return loop.run_until_complete(asyncio.wait_for(work, 30))


async def until(condition):
    while not condition():
        await asyncio.sleep(0.002)


def lines(path):
    return path.read_text().split() if path.exists() else []


# --- calls and results


def test_a_call_runs_in_another_process_and_gives_its_result(loop, lane):
    cpu, _ = lane()

    async def main():
        assert await cpu(calls.pid) != os.getpid()
        assert await cpu(calls.add, 1, 2, kwargs={"more": 3}) == 6
        assert await asyncio.gather(*(cpu(calls.same, number) for number in range(200))) == list(range(200))

    run(loop, main())


def test_callables_that_are_no_plain_functions_travel_too(loop, lane):
    cpu, _ = lane()

    async def main():
        assert await cpu(functools.partial(calls.add, 1, more=5), 2) == 8
        assert await cpu("a-b".split, "-") == ["a", "b"]
        assert await cpu(len, "abc") == 3

    run(loop, main())


@pytest.mark.parametrize("size", [10, LARGE, 3_000_000])
@pytest.mark.parametrize("make", [bytes, bytearray, lambda data: memoryview(bytearray(data)), memoryview, lambda d: [d]])
def test_buffers_of_every_size_come_back_as_they_were(loop, lane, make, size):
    cpu, _ = lane(arena_bytes=4_000_000)
    item = make(os.urandom(size))
    found = run(loop, cpu(calls.same, item))
    assert found == item
    assert type(found) is type(item)
    if isinstance(item, memoryview):
        assert found.readonly == item.readonly


def test_a_view_keeps_its_items_and_shape(loop, lane):
    cpu, _ = lane()
    item = memoryview(array.array("d", range(60_000))).cast("B").cast("d", (200, 300))
    found = run(loop, cpu(calls.same, item))
    assert (found.format, found.shape, found.tolist()) == ("d", (200, 300), item.tolist())


def test_large_buffers_go_by_shared_memory_and_small_ones_do_not(loop, lane):
    cpu, made = lane()

    async def main():
        await cpu(calls.same, b"small")
        before = made.statistics().transfer_bytes
        assert before["out_shm"] == before["in_shm"] == 0
        await cpu(calls.same, {"deep": [os.urandom(LARGE), "y" * LARGE]})
        after = made.statistics().transfer_bytes
        assert after["out_shm"] >= 2 * LARGE
        assert after["in_shm"] >= 2 * LARGE
        assert after["out_inband"] < 1000

    run(loop, main())


def test_a_buffer_that_finds_no_room_travels_all_the_same(loop, lane):
    cpu, made = lane(arena_bytes=0)
    item = os.urandom(5_000_000)
    assert run(loop, cpu(calls.same, item)) == item
    assert made.statistics().transfer_bytes["out_shm"] == 0


def test_numpy_arrays_arrive_writable_and_leave_the_callers_alone(loop, lane):
    numpy = pytest.importorskip("numpy")
    cpu, made = lane()
    item = numpy.arange(100_000)

    async def main():
        assert (await cpu(calls.overwrite, item) == 7).all()
        assert (item == numpy.arange(100_000)).all()
        result = await cpu(calls.same, item)
        result[0] = 5
        assert made.statistics().transfer_bytes["out_shm"] >= 2 * item.nbytes

    run(loop, main())


def test_what_a_job_keeps_of_its_arguments_is_not_overwritten_by_the_next(loop, lane):
    numpy = pytest.importorskip("numpy")
    cpu, made = lane()

    async def main():
        for number in range(1, 6):
            assert await cpu(calls.keep, numpy.full(LARGE, number)) == number
        assert await cpu(calls.kept_totals) == [LARGE * number for number in range(1, 6)]
        link = made._crew.links[0]
        assert link._room.taken_bytes > 0
        await cpu(calls.let_go)
        await cpu(calls.same, 1)
        await until(lambda: link._room.taken_bytes == 0)

    run(loop, main())


def test_arrow_tables_travel_by_shared_memory(loop, lane):
    pyarrow = pytest.importorskip("pyarrow")
    cpu, made = lane()
    table = pyarrow.table({"number": list(range(100_000))})
    assert run(loop, cpu(calls.same, table)).equals(table)
    assert made.statistics().transfer_bytes["in_shm"] >= 800_000


# --- failures of the job


def test_an_exception_comes_back_with_its_notes_and_its_remote_traceback(loop, lane):
    cpu, _ = lane()
    with pytest.raises(ValueError, match="not that") as caught:
        run(loop, cpu(calls.refuse, "on a Tuesday"))
    assert caught.value.__notes__ == ["on a Tuesday"]
    assert "calls.py" in str(caught.value.__cause__)
    assert "in refuse" in str(caught.value.__cause__)


@pytest.mark.parametrize("fn", [calls.refuse_oddly, calls.refuse_with_a_lock, calls.leave])
def test_an_exception_that_cannot_travel_is_told_by_name_and_text(loop, lane, fn):
    cpu, _ = lane()
    with pytest.raises(RemoteError, match="Refused: 1 and 2|ValueError: <unlocked|SystemExit: 4") as caught:
        run(loop, cpu(fn))
    assert f"in {fn.__name__}" in caught.value.traceback
    assert run(loop, cpu(calls.same, 1)) == 1


def test_what_cannot_be_pickled_is_named_before_any_worker_is_touched(loop, lane):
    cpu, made = lane()
    lock = threading.Lock()
    for work, name in (
        (lambda: cpu(lambda: 1), "the function itself"),
        (lambda: cpu(calls.same, {"config": [1, lock]}), r"argument 1\['config'\]\[1\], a lock"),
        (lambda: cpu(calls.add, 1, 2, kwargs={"more": lock}), "argument 'more', a lock"),
    ):
        with pytest.raises(UnpicklableError, match=name):
            run(loop, work())
    assert made.statistics().completed["error"] == 3
    assert made.statistics().run.count == 0


def test_a_result_that_cannot_be_pickled_is_named(loop, lane):
    cpu, _ = lane()
    with pytest.raises(UnpicklableError, match=r"make_a_lock: its result .*\['state'\]\[1\], a lock"):
        run(loop, cpu(calls.make_a_lock))


# --- lost workers


@pytest.mark.parametrize("work", [(calls.die, signal.SIGKILL), (calls.die, signal.SIGSEGV), (calls.exit_with, 7)])
def test_a_lost_worker_fails_only_its_job_and_is_replaced(loop, lane, work):
    cpu, made = lane(workers=2)

    async def main():
        others = [cpu(calls.same, number) for number in range(50)]
        lost = cpu(*work)
        others += [cpu(calls.same, number) for number in range(50)]
        with pytest.raises(WorkerLost) as caught:
            await lost
        assert await asyncio.gather(*others) == [*range(50), *range(50)]
        return caught.value

    problem = run(loop, main())
    assert (problem.signal, problem.exit_code) == ((work[1], None) if work[0] is calls.die else (None, 7))
    assert f"pid {problem.pid}" in str(problem)
    assert made.statistics().restarts["crash"] == 1
    assert made.statistics().completed["worker_lost"] == 1


def test_an_idempotent_job_is_run_again(loop, lane, tmp_path):
    cpu, made = lane()
    path = str(tmp_path / "once")
    assert run(loop, cpu(calls.die_unless, path, retries=1)) == "survived"
    assert made.statistics().completed["worker_lost"] == 0


def test_a_job_that_kills_too_many_workers_is_poison(loop, lane):
    cpu, made = lane(poison_kills=2)
    with pytest.raises(PoisonJob, match="has killed 2 workers and is not run again"):
        run(loop, cpu(calls.die, retries=9))
    assert made.statistics().restarts["crash"] == 2
    assert run(loop, cpu(calls.same, 5)) == 5


def test_a_worker_killed_at_rest_costs_nobody_anything(loop, lane):
    cpu, made = lane()

    async def main():
        os.kill(await cpu(calls.pid), signal.SIGKILL)
        assert await cpu(calls.same, 1, retries=1) == 1
        await until(lambda: made.statistics().restarts["crash"] == 1)
        assert await cpu(calls.same, 2) == 2

    run(loop, main())


def test_workers_that_cannot_start_are_reported_with_the_reason(loop, lane):
    cpu, _ = lane(initializer=calls.fail_to_start)
    with pytest.raises(WorkerStartError, match="RuntimeError: no license for this machine"):
        run(loop, cpu(calls.same, 1))
    cpu, _ = lane(initializer=calls.end_at_once)
    with pytest.raises(WorkerStartError, match="exit code 3"):
        run(loop, cpu(calls.same, 1))


# --- cancelled and late jobs


def test_a_cancelled_job_is_interrupted_and_its_worker_lives_on(loop, lane, tmp_path):
    cpu, made = lane()

    async def main():
        worker = await cpu(calls.pid)
        job = cpu(calls.block, str(tmp_path / "log"))
        await until(lambda: lines(tmp_path / "log"))
        behind = cpu(calls.pid)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        assert await behind == worker

    run(loop, main())
    assert made.statistics().completed["cancelled"] == 1
    assert made.statistics().restarts["cancelled"] == 0


def test_a_late_job_that_will_not_stop_is_killed_and_only_its_worker_pays(loop, lane, tmp_path):
    cpu, made = lane(grace_s=0.05)

    async def main():
        worker = await cpu(calls.pid)
        began = time.monotonic()
        with pytest.raises(TimeoutError, match=r"block_stubbornly has not ended within 0\.3 s"):
            await cpu(calls.block_stubbornly, str(tmp_path / "log"), timeout_s=0.3)
        assert time.monotonic() - began < 5
        assert await cpu(calls.pid) != worker

    run(loop, main())
    assert "interrupted" in lines(tmp_path / "log")
    assert made.statistics().restarts["timeout"] == 1
    assert made.statistics().completed["timeout"] == 1


def test_a_job_cancelled_in_the_queue_never_runs(loop, lane, tmp_path):
    cpu, made = lane()

    async def main():
        gate = tmp_path / "gate"
        first = cpu(calls.wait_for, str(gate))
        queued = [cpu(calls.append, str(tmp_path / "log"), number) for number in range(100)]
        for job in queued[::2]:
            job.cancel()
        gate.touch()
        await first
        await asyncio.gather(*queued[1::2])

    run(loop, main())
    assert lines(tmp_path / "log") == [str(number) for number in range(1, 100, 2)]
    assert made.statistics().completed["cancelled"] == 50


def test_the_configs_timeout_holds_for_jobs_that_name_none(loop, lane, tmp_path):
    cpu, _ = lane(timeout_s=0.2)
    with pytest.raises(TimeoutError):
        run(loop, cpu(calls.block, str(tmp_path / "log")))


def test_an_interrupt_from_the_terminal_reaches_no_job(loop, lane, tmp_path):
    cpu, _ = lane()

    async def main():
        gate = tmp_path / "gate"
        worker = await cpu(calls.pid)
        job = cpu(calls.wait_for, str(gate))
        os.kill(worker, signal.SIGINT)
        os.kill(worker, signal.SIGTERM)
        gate.touch()
        assert await job == worker

    run(loop, main())


# --- who runs what


def test_short_jobs_sent_ahead_do_not_wait_behind_a_long_one(loop, lane, tmp_path):
    cpu, _ = lane(workers=2)

    async def main():
        await asyncio.gather(*(cpu(calls.same, number) for number in range(500)))
        gate = str(tmp_path / "gate")
        long = cpu(calls.wait_for, gate)
        assert await asyncio.gather(*(cpu(calls.same, number) for number in range(300))) == list(range(300))
        assert not long.done()
        pathlib.Path(gate).touch()
        await long

    run(loop, main())


def test_callers_with_other_keys_do_not_wait_for_a_flood(loop, lane, tmp_path):
    cpu, _ = lane()
    order = []

    async def main():
        gate = str(tmp_path / "gate")
        first = cpu(calls.wait_for, gate)
        flood = [cpu(calls.same, number, key="flood") for number in range(50)]
        quiet = cpu(calls.same, 0, key="quiet")
        for job in [*flood, quiet]:
            job.add_done_callback(lambda job: order.append(job.key))
        pathlib.Path(gate).touch()
        await asyncio.gather(first, quiet, *flood)

    run(loop, main())
    assert order.index("quiet") <= 2


def test_the_lane_grows_to_its_limit_and_shrinks_when_idle(loop, lane, tmp_path):
    cpu, made = lane(workers=3, min_workers=1, idle_s=0.05)

    async def main():
        gate = str(tmp_path / "gate")
        work = [cpu(calls.wait_for, gate) for _ in range(6)]
        await until(lambda: made.statistics().workers_busy == 3)
        pathlib.Path(gate).touch()
        assert len(set(await asyncio.gather(*work))) == 3
        await until(lambda: made.statistics().restarts["idle"] == 2)
        assert made.statistics().workers == 1

    run(loop, main())


@pytest.mark.parametrize(
    ("options", "cause"), [({"max_jobs": 2}, "max_jobs"), ({"max_age_s": 0.01}, "age"), ({"max_rss_bytes": 1}, "rss")]
)
def test_workers_are_recycled_and_nothing_is_lost(loop, lane, options, cause):
    cpu, made = lane(**options)

    async def main():
        found = set()
        for _ in range(2):
            found.add(await cpu(calls.pid))
            await asyncio.sleep(0.3 if cause == "rss" else 0.02)
            assert await asyncio.gather(*(cpu(calls.same, number) for number in range(5))) == list(range(5))
        return found

    assert len(run(loop, main())) == 2
    assert made.statistics().restarts[cause] >= 1
    assert made.statistics().restarts["crash"] == 0


# --- starting


@pytest.mark.parametrize("start", ["spawn", "forkserver", "fork"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_every_way_to_start_runs_the_initializer_before_the_first_job(loop, lane, start):
    cpu, _ = lane(start=start, initializer="tests.unit.executors.calls:note_start", preload=("json.tool",))
    found = run(loop, cpu(calls.starts))
    assert len(found) == 1
    assert found[0] != os.getpid()


def test_min_workers_are_there_before_the_first_job(loop, lane):
    _, made = lane(workers=2, min_workers=2)
    made.start(loop)
    run(loop, until(lambda: sum(link.is_ready for link in made._crew.links) == 2))


# --- context


def test_named_context_variables_travel(loop, lane):
    references = ("tests.unit.executors.calls:request_id", "tests.unit.executors.calls:unset")
    cpu, _ = lane(context=references)
    calls.request_id.set("r-17")
    assert run(loop, cpu(calls.read_context)) == ("r-17", "none")
    plain, _ = lane()
    assert run(loop, plain(calls.read_context)) == ("none", "none")


def test_the_trace_context_travels(loop, lane):
    trace = pytest.importorskip("opentelemetry.trace")
    cpu, _ = lane()
    context = trace.SpanContext(0x1234, 0x5678, is_remote=False, trace_flags=trace.TraceFlags(1))
    with trace.use_span(trace.NonRecordingSpan(context)):
        job = cpu(calls.trace_id)
    assert run(loop, job) == 0x1234


# --- bounds


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


def test_a_full_lane_lets_callers_wait_and_builds_nothing_for_them(loop, lane, tmp_path):
    cpu, made = lane(queue_jobs=2, full="wait")

    async def main():
        gate = str(tmp_path / "gate")
        first = cpu(calls.wait_for, gate)
        await until(lambda: made.statistics().running == 1)
        work = [cpu(calls.same, number) for number in range(20)]
        assert (made.statistics().queued, made.statistics().waiting) == (2, 18)
        assert sum(job.payload is not None for job in work) == 2
        pathlib.Path(gate).touch()
        assert await asyncio.gather(*work) == list(range(20))
        await first

    run(loop, main())


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


def test_the_caller_runs_what_finds_no_place(loop, lane, tmp_path):
    cpu, made = lane(queue_jobs=1, full="caller_runs")

    async def main():
        gate = str(tmp_path / "gate")
        first = cpu(calls.wait_for, gate)
        await until(lambda: made.statistics().running == 1)
        queued = cpu(calls.pid)
        assert await cpu(calls.pid) == os.getpid()
        pathlib.Path(gate).touch()
        assert await queued != os.getpid()
        await first

    run(loop, main())


def test_bytes_are_bounded_too(loop, lane, tmp_path):
    cpu, made = lane(queue_bytes=LARGE, full="shed")

    async def main():
        gate = str(tmp_path / "gate")
        first = cpu(calls.wait_for, gate)
        await until(lambda: made.statistics().running == 1)
        queued = cpu(calls.size, bytes(LARGE))
        with pytest.raises(Overloaded, match=f"limit {LARGE}"):
            cpu(calls.same, 1)
        pathlib.Path(gate).touch()
        assert await queued == LARGE
        await first

    run(loop, main())


# --- as a plain executor


def test_it_is_a_plain_executor_for_threads():
    with ProcessLane("cpu", LaneConfig(kind="processes", workers=2)) as executor:
        assert executor.submit(calls.add, 1, right=2).result(20) == 3
        assert list(executor.map(calls.same, range(100), timeout=20)) == list(range(100))
        work = [executor.submit(calls.same, number) for number in range(10)]
        assert {job.result() for job in concurrent.futures.as_completed(work, timeout=20)} == set(range(10))
        with pytest.raises(WorkerLost):
            executor.submit(calls.die).result(20)
    with pytest.raises(RuntimeError, match="lane 'cpu' is shut down"):
        executor.submit(calls.pid)


def test_a_running_job_of_a_thread_can_be_cancelled(tmp_path):
    with ProcessLane("cpu", LaneConfig(kind="processes", workers=1)) as executor:
        worker = executor.submit(calls.pid).result(20)
        job = executor.submit(calls.block, str(tmp_path / "log"))
        while not lines(tmp_path / "log"):
            time.sleep(0.002)
        assert job.running()
        assert job.cancel()
        assert executor.submit(calls.pid).result(20) == worker


def test_a_thread_waits_for_a_place_in_a_full_lane(tmp_path):
    with ProcessLane("cpu", LaneConfig(kind="processes", workers=1, queue_jobs=1)) as executor:
        gate = tmp_path / "gate"
        work = [executor.submit(calls.wait_for, str(gate))]
        done = threading.Event()

        def offer():
            work.extend(executor.submit(calls.same, number) for number in range(20))
            done.set()

        thread = threading.Thread(target=offer)
        thread.start()
        assert not done.wait(0.2)
        gate.touch()
        thread.join(20)
        assert [job.result(20) for job in work[1:]] == list(range(20))


def test_stock_run_in_executor_takes_it(loop):
    with ProcessLane("cpu", LaneConfig(kind="processes", workers=1)) as executor:
        executor.submit(calls.pid).result(20)
        stock = asyncio.new_event_loop()
        try:
            assert stock.run_until_complete(stock.run_in_executor(executor, calls.add, 1, 2)) == 3
        finally:
            stock.close()


def test_waiting_in_the_loops_own_thread_is_refused(loop, lane):
    cpu, made = lane()

    async def main():
        await cpu(calls.same, 1)
        with pytest.raises(RuntimeError, match="would block the loop that delivers it"):
            made.submit(calls.pid).result()

    run(loop, main())


def test_a_second_loop_may_use_a_lane_while_the_first_runs(lane, loop):
    cpu, made = lane()
    found = []

    def other():
        second = asyncio.new_event_loop()
        try:
            found.append(second.run_until_complete(asyncio.wait_for(call(second, made, calls.add, 20, 3), 20)))
        finally:
            second.close()

    async def main():
        await cpu(calls.same, 1)
        await asyncio.to_thread(other)

    run(loop, main())
    assert found == [23]


# --- its end


def test_shutdown_finishes_what_is_queued(loop, lane):
    cpu, made = lane()

    async def main():
        work = [cpu(calls.same, number) for number in range(200)]
        await asyncio.to_thread(made.shutdown)
        assert await asyncio.gather(*work) == list(range(200))
        with pytest.raises(RuntimeError, match="shut down"):
            cpu(calls.same, 1)

    run(loop, main())


def test_shutdown_can_cancel_what_has_not_begun(loop, lane, tmp_path):
    cpu, made = lane()

    async def main():
        gate = tmp_path / "gate"
        first = cpu(calls.wait_for, str(gate))
        await until(lambda: made.statistics().running == 1)
        work = [cpu(calls.same, number) for number in range(20)]
        made.shutdown(wait=False, cancel_futures=True)
        assert all(job.cancelled() for job in work)
        gate.touch()
        await first

    run(loop, main())


def test_a_lane_whose_loop_has_closed_lives_on_with_the_next(lane):
    made = ProcessLane("cpu", LaneConfig(kind="processes", workers=1))
    try:
        for _ in range(2):
            first = penstock.new_event_loop()
            assert first.run_until_complete(asyncio.wait_for(call(first, made, calls.same, 3), 20)) == 3
            first.close()
    finally:
        made.close()


def test_a_finished_job_leaves_no_cycle_behind(loop, lane):
    cpu, _ = lane()

    async def main():
        await asyncio.gather(*(cpu(calls.same, [number]) for number in range(100)))
        gc.collect()
        gc.disable()
        try:
            await asyncio.gather(*(cpu(calls.same, [number]) for number in range(100)))
            await asyncio.sleep(0)
            return gc.collect()
        finally:
            gc.enable()

    assert run(loop, main()) < 30


SCRIPT = """
import os, sys, time
sys.path[:0] = {path!r}
from penstock.config import LaneConfig
from penstock.executors.processes import ProcessLane
from tests.unit.executors import calls
if __name__ == "__main__":
    lane = ProcessLane("cpu", LaneConfig(kind="processes", workers=2, start={start!r}))
    print(*{{lane.submit(calls.spin, 0.05).result() for _ in range(1)}}, flush=True)
    {ending}
"""


def in_a_program(ending, start="forkserver"):
    text = SCRIPT.format(path=[str(ROOT / "src"), str(ROOT)], ending=ending, start=start)
    return subprocess.Popen([sys.executable, "-W", "error", "-c", text], stdout=-1, stderr=-1, text=True, cwd=ROOT)


@pytest.mark.parametrize("start", ["spawn", "forkserver"])
def test_no_worker_outlives_a_parent_that_is_killed(start):
    ending = "[lane.submit(calls.spin, 60) for _ in range(4)]; time.sleep(60)"
    with in_a_program(ending, start) as program:
        worker = int(program.stdout.readline())
        program.kill()
        program.wait(10)
        end = time.monotonic() + 2
        while not is_zombie(worker) and time.monotonic() < end:
            time.sleep(0.01)
        assert is_zombie(worker)


def test_a_program_that_ends_with_its_lane_still_open_finishes_its_jobs_and_says_nothing(tmp_path):
    log = tmp_path / "log"
    with in_a_program(f"[lane.submit(calls.append, {str(log)!r}, number) for number in range(50)]") as program:
        out, err = program.communicate(timeout=20)
        assert (program.returncode, err) == (0, "")
        assert is_zombie(int(out))
    assert sorted(lines(log), key=int) == [str(number) for number in range(50)]
