"""The workers of a process lane: lost, interrupted, grown, recycled, started."""

import asyncio
import functools
import multiprocessing.forkserver
import os
import pathlib
import resource
import signal

import pytest

from penstock.errors import (
    PoisonJob,
    WorkerLost,
    WorkerStartError,
)
from tests.support.waiting import until
from tests.unit.executors import calls
from tests.unit.executors.shared import is_zombie, lines, run

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


def test_a_worker_whose_job_closes_its_socket_is_lost_and_ended(loop, lane):
    cpu, made = lane()

    async def main():
        worker = await cpu(calls.pid)
        with pytest.raises(WorkerLost):
            await cpu(calls.close_everything)
        assert await cpu(calls.pid) != worker
        assert is_zombie(worker)

    run(loop, main())
    assert made.statistics().restarts["crash"] == 1


@pytest.fixture
def many_descriptors():
    """So many are open that those of workers are beyond what `select` takes."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limits[1] < 4096:
        pytest.skip("the limit of descriptors is low")
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, limits[1]))
    reading, writing = os.pipe()
    opened = [reading, writing, *(os.dup(reading) for _ in range(1100))]
    yield
    for fd in opened:
        os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.usefixtures("many_descriptors")
async def test_a_worker_is_lost_and_interrupted_beyond_a_thousand_descriptors(loop, lane, tmp_path):
    cpu, made = lane(grace_s=0.0)

    with pytest.raises(WorkerLost):
        await cpu(calls.die)
    job = cpu(calls.block_stubbornly, str(tmp_path / "log"))
    await until(lambda: lines(tmp_path / "log"))
    job.cancel()
    await until(lambda: made.statistics().restarts["cancelled"] == 1)


def test_an_idempotent_job_is_run_again(loop, lane, tmp_path):
    cpu, made = lane()
    path = str(tmp_path / "once")
    assert run(loop, cpu(calls.die_unless, path, retries=1)) == "survived"
    assert made.statistics().completed["worker_lost"] == 0


def test_a_job_that_kills_too_many_workers_is_poison(loop, lane):
    cpu, made = lane(poison_kills=2)
    with pytest.raises(PoisonJob, match="2 workers died while they ran it; it is not run again"):
        run(loop, cpu(calls.die, retries=9))
    assert made.statistics().restarts["crash"] == 2
    assert run(loop, cpu(calls.same, 5)) == 5


async def test_a_worker_killed_at_rest_costs_nobody_anything(loop, lane):
    cpu, made = lane()

    os.kill(await cpu(calls.pid), signal.SIGKILL)
    assert await cpu(calls.same, 1, retries=1) == 1
    await until(lambda: made.statistics().restarts["crash"] == 1)
    assert await cpu(calls.same, 2) == 2


# --- cancelled and late jobs


def test_a_cancelled_job_is_interrupted_and_its_worker_lives_on(loop, lane, tmp_path):
    cpu, made = lane(grace_s=500)

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


def test_an_interrupt_that_a_job_misses_is_sent_again(loop, lane, tmp_path):
    cpu, made = lane(grace_s=500)

    async def main():
        worker = await cpu(calls.pid)
        job = cpu(calls.wait_for_a_second_interrupt, str(tmp_path / "log"))
        await until(lambda: lines(tmp_path / "log"))
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        assert await cpu(calls.pid) == worker

    run(loop, main())
    assert made.statistics().restarts["cancelled"] == 0


def test_a_late_job_that_will_not_stop_is_killed_and_only_its_worker_pays(loop, lane, tmp_path):
    cpu, made = lane(grace_s=0.05)

    async def main():
        worker = await cpu(calls.pid)
        job = cpu(calls.block_stubbornly, str(tmp_path / "log"), timeout_s=500)
        await until(lambda: lines(tmp_path / "log"))
        # as its timer does
        made._expire(job)
        with pytest.raises(TimeoutError, match=r"block_stubbornly has not ended within 500 s"):
            await job
        assert await cpu(calls.pid) != worker

    run(loop, main())
    assert made.statistics().restarts["timeout"] == 1
    assert made.statistics().completed["timeout"] == 1


async def test_a_late_job_is_interrupted_before_it_is_killed(loop, lane, tmp_path):
    cpu, made = lane(grace_s=500)
    log = tmp_path / "log"

    job = cpu(calls.block_stubbornly, str(log), timeout_s=500)
    await until(lambda: lines(log))
    made._expire(job)
    with pytest.raises(TimeoutError):
        await job
    await until(lambda: "interrupted" in lines(log))


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


async def test_an_interrupt_from_the_terminal_reaches_no_job(loop, lane, tmp_path):
    cpu, _ = lane()

    gate = tmp_path / "gate"
    worker = await cpu(calls.pid)
    job = cpu(calls.wait_for, str(gate))
    os.kill(worker, signal.SIGINT)
    os.kill(worker, signal.SIGTERM)
    gate.touch()
    assert await job == worker


# --- who runs what


async def test_short_jobs_sent_ahead_do_not_wait_behind_a_long_one(loop, lane, tmp_path):
    cpu, _ = lane(workers=2)

    await asyncio.gather(*(cpu(calls.same, number) for number in range(500)))
    gate = str(tmp_path / "gate")
    long = cpu(calls.wait_for, gate)
    assert await asyncio.gather(*(cpu(calls.same, number) for number in range(300))) == list(range(300))
    assert not long.done()
    pathlib.Path(gate).touch()
    await long


async def test_no_job_waits_behind_a_long_one_while_a_worker_can_be_started(loop, lane, tmp_path):
    cpu, made = lane(workers=3)

    for number in range(100):
        await cpu(calls.same, number)
    gate = str(tmp_path / "gate")
    long = cpu(calls.wait_for, gate)
    assert await asyncio.gather(*(cpu(calls.same, number) for number in range(5))) == list(range(5))
    assert not long.done()
    assert made.statistics().workers > 1
    pathlib.Path(gate).touch()
    await long


async def test_a_late_job_that_has_not_begun_is_told_so(loop, lane, tmp_path):
    cpu, made = lane()

    with pytest.raises(TimeoutError, match=r"has not begun within 1e-06 s.*no worker of it is ready"):
        await cpu(calls.append, str(tmp_path / "log"), 1, timeout_s=1e-6)
    for number in range(100):
        await cpu(calls.same, number)
    gate = str(tmp_path / "gate")
    long = cpu(calls.wait_for, gate)
    with pytest.raises(TimeoutError, match=r"has not begun within 0\.05 s.*its workers are busy"):
        await cpu(calls.append, str(tmp_path / "log"), 2, timeout_s=0.05)
    pathlib.Path(gate).touch()
    await long
    assert not lines(tmp_path / "log")


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


async def test_the_lane_grows_to_its_limit_and_shrinks_when_idle(loop, lane, tmp_path):
    cpu, made = lane(workers=3, min_workers=1, idle_s=0.05)

    gate = str(tmp_path / "gate")
    work = [cpu(calls.wait_for, gate) for _ in range(6)]
    await until(lambda: made.statistics().workers_busy == 3)
    pathlib.Path(gate).touch()
    assert len(set(await asyncio.gather(*work))) == 3
    await until(lambda: made.statistics().restarts["idle"] == 2)
    assert made.statistics().workers == 1


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("options", "cause"), [({"max_jobs": 2}, "max_jobs"), ({"max_age_s": 1e-6}, "age"), ({"max_rss_bytes": 1}, "rss")]
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

    # a dozen workers, one after the other
    assert len(run(loop, main(), patience_s=110)) == 2
    assert made.statistics().restarts[cause] >= 1
    assert made.statistics().restarts["crash"] == 0


def test_no_worker_runs_more_than_max_jobs(loop, lane):
    cpu, made = lane(workers=2, max_jobs=3)

    async def main():
        counts = await asyncio.gather(*(cpu(calls.grow, 1) for _ in range(20)))
        return [counts.count(pid) for pid in set(counts)]

    assert max(run(loop, main())) <= 3
    assert made.statistics().restarts["crash"] == 0


# --- starting


@pytest.mark.parametrize("start", ["spawn", "forkserver", "fork"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_every_way_to_start_runs_the_initializer_before_the_first_job(loop, lane, start):
    cpu, _ = lane(start=start, initializer="tests.unit.executors.calls:note_start", preload=("json.tool",))
    found = run(loop, cpu(calls.starts))
    assert len(found) == 1
    assert found[0] != os.getpid()


@pytest.mark.parametrize("steps", [0, 7, 19])
def test_workers_stand_back_behind_the_loop(loop, lane, steps):
    cpu, _ = lane(nice=steps)
    assert run(loop, cpu(calls.niceness)) == min(os.nice(0) + steps, 19)


def test_min_workers_are_there_before_the_first_job(loop, lane):
    _, made = lane(workers=2, min_workers=2)
    made.start(loop)
    run(loop, until(lambda: sum(link.is_ready for link in made._pool.connections) == 2))


STARTS = pytest.mark.parametrize("start", ["spawn", "forkserver", "fork"])


@STARTS
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_why_workers_do_not_start_is_told_with_the_traceback(loop, lane, start):
    cpu, _ = lane(start=start, initializer=calls.fail_to_start)
    with pytest.raises(WorkerStartError, match="RuntimeError: no license for this machine") as caught:
        run(loop, cpu(calls.same, 1))
    cause = caught.value.__cause__
    assert isinstance(cause, RuntimeError)
    assert "in fail_to_start" in str(cause.__cause__)


@STARTS
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_module_that_cannot_be_preloaded_is_told_with_the_traceback(loop, lane, start, monkeypatch):
    # one that only a new forkserver would import before its first worker
    fresh = multiprocessing.forkserver.ForkServer()
    for name in ("connect_to_new_process", "set_forkserver_preload"):
        monkeypatch.setattr(multiprocessing.forkserver, name, getattr(fresh, name))
    cpu, made = lane(start=start, preload=("tests.unit.executors.unloadable",))
    try:
        with pytest.raises(WorkerStartError, match="KeyError: 'config'") as caught:
            run(loop, cpu(calls.same, 1))
    finally:
        made.close()
        fresh._stop()
    assert "in read_config" in str(caught.value.__cause__.__cause__)


def test_workers_that_end_at_once_are_told_with_their_exit_code(loop, lane):
    cpu, _ = lane(initializer=calls.end_at_once)
    with pytest.raises(WorkerStartError, match="exit code 3"):
        run(loop, cpu(calls.same, 1))


@pytest.mark.parametrize("initializer", [calls.hang, calls.hang_stubbornly])
def test_an_initializer_that_hangs_has_a_bound(loop, lane, initializer):
    # the one that is asked where it is must have come there
    start_s = 5 if initializer is calls.hang else 0.3
    cpu, _ = lane(start_s=start_s, grace_s=0.2, initializer=initializer)
    with pytest.raises(WorkerStartError, match=f"not ready after {start_s} s") as caught:
        run(loop, cpu(calls.same, 1))
    if initializer is calls.hang:
        assert "in hang" in str(caught.value.__cause__.__cause__)


def test_an_initializer_that_misses_an_interrupt_is_interrupted_again_and_told_with_its_place(loop, lane):
    cpu, _ = lane(start_s=3, grace_s=500, initializer=calls.hang_past_one_interrupt)
    with pytest.raises(WorkerStartError, match="not ready after 3 s") as caught:
        run(loop, cpu(calls.same, 1))
    assert "in hang_past_one_interrupt" in str(caught.value.__cause__.__cause__)


async def test_a_start_that_fails_is_not_tried_again_at_once_while_there_are_workers(loop, lane, tmp_path, monkeypatch):
    monkeypatch.setattr("penstock.executors.processes.pool.START_PAUSE_NS", 10**15)
    once = tmp_path / "once"
    cpu, made = lane(workers=2, initializer=functools.partial(calls.fail_unless_first, str(once)))

    await cpu(calls.same, 1)
    gate = str(tmp_path / "gate")
    long = cpu(calls.wait_for, gate)
    others = [cpu(calls.same, number) for number in range(20)]
    await until(lambda: made.statistics().restarts["crash"] == 1)
    for number in range(50):
        others.append(cpu(calls.same, number))
        await asyncio.sleep(0)
    assert made._pool.starting == 0
    pathlib.Path(gate).touch()
    await asyncio.gather(long, *others)
