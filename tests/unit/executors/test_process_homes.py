"""Where a process lane lives: whatever begins, runs or ends, no job is lost and no future stays pending."""

import asyncio
import pathlib
import subprocess
import sys
import threading
from concurrent.futures import CancelledError

import pytest

from penstock.config import LaneConfig
from penstock.errors import WorkerLost
from penstock.executors.processes.lane import ProcessLane
from tests.support.waiting import until
from tests.unit.executors import calls
from tests.unit.executors.shared import call, lines, run

ROOT = pathlib.Path(__file__).parents[3]
PATIENCE_S = 40


def test_a_loop_that_begins_to_run_costs_no_job_of_a_thread(loop, lane, tmp_path):
    cpu, made = lane(workers=2)
    gate, log = tmp_path / "gate", tmp_path / "log"
    running = made.submit(calls.wait_and_tell, str(log), str(gate))
    behind = [made.submit(calls.same, number) for number in range(5)]
    made.start(loop)
    run(loop, until(lambda: lines(log)))
    made.start(loop)
    # the loop has a call of its own, too
    own = run(loop, cpu(calls.same, "own"))
    gate.touch()
    assert running.result(PATIENCE_S) == int(lines(log)[0])
    assert [job.result(PATIENCE_S) for job in behind] == list(range(5))
    assert own == "own"


async def test_the_lane_moves_to_a_loop_that_calls_once_the_jobs_of_threads_are_done(loop, lane):
    cpu, made = lane()
    assert made.submit(calls.same, 1).result(PATIENCE_S) == 1
    service = made._loop_thread

    while made._home is not loop:
        assert await cpu(calls.same, 2) == 2
    await until(lambda: not service._thread.is_alive())
    assert await cpu(calls.same, 3) == 3


def test_min_workers_are_there_after_the_lane_has_moved(loop, lane):
    _, made = lane(min_workers=1)
    assert made.submit(calls.same, 1).result(PATIENCE_S) == 1
    made.start(loop)
    run(loop, until(lambda: made._home is loop and any(link.is_ready for link in made._pool.connections)))


def test_a_thread_that_calls_while_the_home_stands_still_is_served(loop, lane):
    cpu, made = lane()
    assert run(loop, cpu(calls.same, 1)) == 1
    assert made.submit(calls.same, 2).result(PATIENCE_S) == 2
    assert run(loop, cpu(calls.same, 3)) == 3


def test_what_threads_have_submitted_is_finished_when_the_loop_ends(loop, lane, tmp_path):
    _, made = lane(workers=2)
    gate = tmp_path / "gate"

    async def main():
        futures = await asyncio.to_thread(lambda: [made.submit(calls.wait_for, str(gate)) for _ in range(4)])
        made.start(asyncio.get_running_loop())
        shut = asyncio.create_task(asyncio.to_thread(made.shutdown))
        await until(lambda: made._is_shut)
        gate.touch()
        await shut
        return futures

    assert all(future.done() and future.result() for future in run(loop, main()))


def test_a_lane_that_is_closed_leaves_no_future_pending(loop, lane, tmp_path):
    cpu, made = lane()
    log, gate = str(tmp_path / "log"), str(tmp_path / "gate")

    async def main():
        own = [cpu(calls.wait_and_tell, log, gate), *(cpu(calls.same, number) for number in range(5))]
        await until(lambda: lines(tmp_path / "log"))
        with_threads = await asyncio.to_thread(lambda: [made.submit(calls.same, 1)])
        return [*own, *with_threads]

    futures = run(loop, main())
    # one more that the home never hears of
    futures.append(in_a_thread(lambda: made.submit(calls.same, 2)))
    made.close()
    assert all(future.cancelled() for future in futures)
    with pytest.raises(CancelledError):
        futures[-1].result(PATIENCE_S)


def in_a_thread(act):
    found = []
    thread = threading.Thread(target=lambda: found.append(act()))
    thread.start()
    thread.join()
    return found[0]


def test_a_loop_that_closes_without_a_word_loses_no_future_once_the_lane_is_used_again(tmp_path):
    lane = ProcessLane("cpu", LaneConfig(kind="processes", workers=1))
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    try:
        job = call(first, lane, calls.wait_and_tell, str(tmp_path / "log"), str(tmp_path / "gate"))
        run(first, until(lambda: lines(tmp_path / "log")))
        posted = in_a_thread(lambda: lane.submit(calls.same, 1))
        first.close()
        assert run(second, call(second, lane, calls.same, 2)) == 2
        assert job.cancelled()
        assert posted.cancelled()
    finally:
        lane.close()
        second.close()


def test_a_callback_that_ends_its_thread_costs_no_other_job(caplog):
    def leave(future):
        raise SystemExit(3)

    # the future's own callbacks run in the lane's thread
    with ProcessLane("cpu", LaneConfig(kind="processes", workers=1)) as lane:
        futures = [lane.submit(calls.same, number) for number in range(10)]
        for future in futures[::3]:
            future.add_done_callback(leave)
        assert [future.result(PATIENCE_S) for future in futures] == list(range(10))
        with pytest.raises(WorkerLost):
            lane.submit(calls.die).result(PATIENCE_S)


def test_a_shutdown_right_after_a_submit_waits_for_the_job():
    for _ in range(5):
        lane = ProcessLane("cpu", LaneConfig(kind="processes", workers=1))
        future = lane.submit(calls.same, 1)
        lane.shutdown()
        assert future.result(0) == 1


# --- whole programs

PROGRAM = """
import asyncio, os, sys, threading
sys.path[:0] = {path!r}
import penstock
from penstock.config import LaneConfig
from penstock.executors.processes.lane import ProcessLane
from tests.unit.executors import calls
{text}
"""


def outcome(text):
    program = PROGRAM.format(path=[str(ROOT / "src"), str(ROOT)], text=text)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE_S, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


UNTIL_EXIT = """
def wait(future):
    try:
        print("ended", future.result(), flush=True)
    except BaseException as problem:
        print("ended", type(problem).__name__, flush=True)

if __name__ == "__main__":
    lane = ProcessLane("cpu", LaneConfig(kind="processes", workers=1))
    loop = penstock.new_event_loop()
    loop.run_until_complete(lane.call(loop, calls.pid, ()))
    # the home has a job, and never runs again
    lane.call(loop, calls.hang, ())
    threading.Thread(target=wait, args=(lane.submit(calls.pid),)).start()
"""


def test_a_thread_that_waits_when_the_program_ends_is_told():
    assert outcome(UNTIL_EXIT)[-2:] == ["ended", "CancelledError"]


FORKS = """
async def main():
    return await penstock.offload(abs, -1)

if __name__ == "__main__":
    for before in {before}:
        print(penstock.run(main()), flush=True)
    for _ in range(2):
        if os.fork() == 0:
            print(penstock.run(main()), flush=True)
            os._exit(0)
        os.wait()
    print(penstock.run(main()), flush=True)
"""


@pytest.mark.parametrize("before", ["()", "(1,)"])
def test_a_forked_child_starts_workers_of_its_own(before):
    found = outcome(FORKS.format(before=before))
    assert found == ["1"] * (3 + len(eval(before)))


FORK_WITHIN = """
async def main():
    work = [penstock.offload(calls.spin, 0.01) for _ in range(20)]
    jobs = [asyncio.ensure_future(job) for job in work]
    children = []
    for number in range(5):
        await asyncio.sleep(0.01)
        child = os.fork()
        if child == 0:
            lane = ProcessLane("cpu", LaneConfig(kind="processes", workers=1))
            os._exit(lane.submit(calls.same, number).result(30) != number)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(await asyncio.to_thread(lambda: os.waitpid(child, 0)[1])) for child in children]
    assert all(await asyncio.gather(*jobs))
    print(*codes)

if __name__ == "__main__":
    import warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    penstock.run(main())
"""


def test_a_fork_at_any_moment_of_a_start_leaves_a_child_that_works():
    assert outcome(FORK_WITHIN) == ["0"] * 5
