"""The process lane: calls, buffers, results, failures, context, its face as a plain executor, its end."""

import array
import asyncio
import concurrent.futures
import contextvars
import functools
import gc
import os
import pathlib
import subprocess
import sys
import threading
import time

import pytest

import penstock
from penstock.config import LaneConfig
from penstock.errors import (
    RemoteError,
    UnpicklableError,
    WorkerLost,
)
from penstock.executors.processes.lane import ProcessLane
from tests.support.waiting import until
from tests.unit.executors import calls
from tests.unit.executors.shared import call, is_zombie, lines, run

ROOT = pathlib.Path(__file__).parents[3]
LARGE = 300_000


# --- calls and results


async def test_a_call_runs_in_another_process_and_gives_its_result(loop, lane):
    cpu, _ = lane()

    assert await cpu(calls.pid) != os.getpid()
    assert await cpu(calls.add, 1, 2, kwargs={"more": 3}) == 6
    assert await asyncio.gather(*(cpu(calls.same, number) for number in range(200))) == list(range(200))


async def test_callables_that_are_no_plain_functions_travel_too(loop, lane):
    cpu, _ = lane()

    assert await cpu(functools.partial(calls.add, 1, more=5), 2) == 8
    assert await cpu("a-b".split, "-") == ["a", "b"]
    assert await cpu(len, "abc") == 3


@pytest.mark.parametrize("size", [10, LARGE, 3_000_000])
@pytest.mark.parametrize(
    "make", [bytes, bytearray, lambda data: memoryview(bytearray(data)), memoryview, lambda d: [d]]
)
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


async def test_large_buffers_go_by_shared_memory_and_small_ones_do_not(loop, lane):
    cpu, made = lane()

    await cpu(calls.same, b"small")
    before = made.statistics().transfer_bytes
    assert before["out_shm"] == before["in_shm"] == 0
    await cpu(calls.same, {"deep": [os.urandom(LARGE), "y" * LARGE]})
    after = made.statistics().transfer_bytes
    assert after["out_shm"] >= 2 * LARGE
    assert after["in_shm"] >= 2 * LARGE
    assert after["out_inband"] < 1000


def test_a_buffer_that_finds_no_room_travels_all_the_same(loop, lane):
    cpu, made = lane(arena_bytes=0)
    item = os.urandom(5_000_000)
    assert run(loop, cpu(calls.same, item)) == item
    assert made.statistics().transfer_bytes["out_shm"] == 0


async def test_numpy_arrays_arrive_writable_and_leave_the_callers_alone(loop, lane):
    numpy = pytest.importorskip("numpy")
    cpu, made = lane()
    item = numpy.arange(100_000)

    assert (await cpu(calls.overwrite, item) == 7).all()
    assert (item == numpy.arange(100_000)).all()
    result = await cpu(calls.same, item)
    result[0] = 5
    assert made.statistics().transfer_bytes["out_shm"] >= 2 * item.nbytes


async def test_what_a_job_keeps_of_its_arguments_is_not_overwritten_by_the_next(loop, lane):
    numpy = pytest.importorskip("numpy")
    cpu, made = lane()

    for number in range(1, 6):
        assert await cpu(calls.keep, numpy.full(LARGE, number)) == number
    assert await cpu(calls.kept_totals) == [LARGE * number for number in range(1, 6)]
    link = made._pool.connections[0]
    assert link._room.taken_bytes > 0
    await cpu(calls.let_go)
    await cpu(calls.same, 1)
    await until(lambda: link._room.taken_bytes == 0)


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
    with pytest.raises(RemoteError, match=r"Refused: 1 and 2|ValueError: <unlocked|SystemExit: 4") as caught:
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


def test_a_result_that_cannot_be_made_again_is_named(loop, lane):
    cpu, _ = lane()
    with pytest.raises(UnpicklableError, match=r"make_refused: its result cannot be loaded here: TypeError") as caught:
        run(loop, cpu(calls.make_refused))
    assert isinstance(caught.value.__cause__, TypeError)
    assert run(loop, cpu(calls.same, 1)) == 1


# --- context


def test_named_context_variables_travel(loop, lane):
    references = ("tests.unit.executors.calls:request_id", "tests.unit.executors.calls:unset")
    cpu, _ = lane(context=references)
    calls.request_id.set("r-17")
    assert run(loop, cpu(calls.read_context)) == ("r-17", "none")
    plain, _ = lane()
    assert run(loop, plain(calls.read_context)) == ("none", "none")


async def test_the_variables_of_a_jobs_own_context_are_sent(loop, lane):
    cpu, _ = lane(context=("tests.unit.executors.calls:request_id",))
    given = contextvars.copy_context()
    given.run(calls.request_id.set, "given")
    calls.request_id.set("the caller's")
    assert (await cpu(calls.read_context, context=given))[0] == "given"


def test_a_context_variable_that_cannot_travel_is_named(loop, lane):
    cpu, _ = lane(context=("tests.unit.executors.calls:request_id",))

    def call():
        calls.request_id.set([threading.Lock()])
        return cpu(calls.read_context)

    with pytest.raises(
        UnpicklableError, match=r"context variable 'tests.unit.executors.calls:request_id'\[0\], a lock"
    ):
        run(loop, contextvars.Context().run(call))


def test_the_trace_context_travels(loop, lane):
    trace = pytest.importorskip("opentelemetry.trace")
    cpu, _ = lane()
    context = trace.SpanContext(0x1234, 0x5678, is_remote=False, trace_flags=trace.TraceFlags(1))
    with trace.use_span(trace.NonRecordingSpan(context)):
        job = cpu(calls.trace_id)
    assert run(loop, job) == 0x1234


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


async def test_waiting_in_the_loops_own_thread_is_refused(loop, lane):
    cpu, made = lane()

    await cpu(calls.same, 1)
    with pytest.raises(RuntimeError, match="would block the loop that delivers it"):
        made.submit(calls.pid).result()


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


async def test_shutdown_finishes_what_is_queued(loop, lane):
    cpu, made = lane()

    work = [cpu(calls.same, number) for number in range(200)]
    await asyncio.to_thread(made.shutdown)
    assert await asyncio.gather(*work) == list(range(200))
    with pytest.raises(RuntimeError, match="shut down"):
        cpu(calls.same, 1)


async def test_shutdown_can_cancel_what_has_not_begun(loop, lane, tmp_path):
    cpu, made = lane()

    gate = tmp_path / "gate"
    first = cpu(calls.wait_for, str(gate))
    await until(lambda: made.statistics().running == 1)
    work = [cpu(calls.same, number) for number in range(20)]
    made.shutdown(wait=False, cancel_futures=True)
    assert all(job.cancelled() for job in work)
    gate.touch()
    await first


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
from penstock.executors.processes.lane import ProcessLane
from tests.unit.executors import calls
if __name__ == "__main__":
    lane = ProcessLane("cpu", LaneConfig(kind="processes", workers=2, start={start!r}))
    print(lane.submit(calls.spin, 0.01).result(), flush=True)
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
