"""The lane over dask.distributed, against a real scheduler with two worker processes."""

import asyncio
import functools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from penstock.config import LaneConfig
from penstock.errors import ConfigError, PoisonJob, RemoteError, SchedulerLost, UnpicklableError
from tests.support.loops import run_on
from tests.unit.executors import calls
from tests.unit.executors.cluster import Cluster, unused_address

pytest.importorskip("distributed", reason="dask.distributed is not installed")

from penstock.executors.backends.dask import DaskLane

# how long nobody waits but for what never comes
WAIT_S = 50


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    made = Cluster(tmp_path_factory.mktemp("dask"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture
def own_cluster(tmp_path):
    made = Cluster(tmp_path)
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture
def lane(cluster):
    made = DaskLane("cpu", LaneConfig(f"dask://{cluster.address}"))
    yield made
    made.shutdown(cancel_futures=True)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr("penstock.executors.backends.dask.CONNECT_S", 0.5)


@pytest.fixture
def run():
    """`run(coroutine)`: to its end in asyncio's loop, within a time in which clusters start."""
    return functools.partial(run_on, asyncio.SelectorEventLoop, timeout_s=WAIT_S)


def wait_for_file(path):
    Path(path).with_suffix(".begun").touch()
    while not os.path.exists(path):
        time.sleep(0.01)


def note(path, word):
    with open(path, "a") as stream:
        stream.write(word)


def fail_once(path):
    if not os.path.exists(path):
        Path(path).touch()
        raise OSError("the first time")
    return "the second time"


def fail(problem):
    raise problem


def leave():
    raise SystemExit(3)


def die():
    os._exit(9)


async def begun(path):
    while not Path(path).with_suffix(".begun").exists():
        await asyncio.sleep(0.01)


async def known_to_scheduler(lane, count):
    """Wait until the scheduler has so many unfinished tasks; asked by a client of the test's own."""
    from distributed import Client

    def unfinished(dask_scheduler):
        return sum(task.state not in ("memory", "released", "forgotten") for task in dask_scheduler.tasks.values())

    address = f"tcp://{lane.config.kind.removeprefix('dask://')}"
    async with Client(address, asynchronous=True, set_as_default=False) as client:
        while await client.run_on_scheduler(unfinished) != count:
            await asyncio.sleep(0.01)


def test_calls_run_in_the_clusters_processes(run, lane, cluster):
    async def main():
        loop = asyncio.get_running_loop()
        pids = await asyncio.gather(*(lane.call(loop, calls.pid, ()) for _ in range(20)))
        assert set(pids) <= {process.pid for process in cluster.processes[1:]}

    run(main())
    assert lane.submit(calls.same, b"x" * 1_000_000).result(WAIT_S) == b"x" * 1_000_000
    statistics = lane.statistics()
    assert (statistics.kind, statistics.completed["ok"], statistics.running) == ("dask", 21, 0)


def test_keywords_reach_the_function_even_those_that_dask_has_itself(run, lane):
    run(check_keywords(lane))


async def check_keywords(lane):
    loop = asyncio.get_running_loop()
    given = {"key": 1, "priority": 2, "retries": 3, "workers": "w", "pure": True}
    assert await lane.call(loop, dict, (), given) == given
    assert await lane.call(loop, calls.add, (1, 2), {"more": 3}) == 6


def test_the_same_call_twice_runs_twice(lane, tmp_path):
    path = str(tmp_path / "runs")
    for _ in range(2):
        lane.submit(note, path, "x").result(WAIT_S)
    assert Path(path).read_text() == "xx"


def test_exceptions_come_back_as_themselves(run, lane):
    async def main():
        loop = asyncio.get_running_loop()
        with pytest.raises(KeyError) as caught:
            await lane.call(loop, fail, (KeyError("gone", 7),))
        assert caught.value.args == ("gone", 7)
        with pytest.raises(TimeoutError, match="of its own"):
            await lane.call(loop, fail, (TimeoutError("of its own"),))

    run(main())
    assert lane.statistics().completed["timeout"] == 0


def test_a_jobs_exit_does_not_end_the_program(lane):
    """Nor takes it the worker's thread."""
    for _ in range(4):
        with pytest.raises(RemoteError, match=r"^builtins.SystemExit: 3$"):
            lane.submit(leave).result(WAIT_S)
    assert lane.submit(calls.same, 1).result(WAIT_S) == 1


def test_what_cannot_be_sent_is_told(lane):
    with pytest.raises(UnpicklableError, match=r"calls.same cannot be sent .*_thread.lock"):
        lane.submit(calls.same, threading.Lock()).result(WAIT_S)


async def test_retries_run_a_job_again_that_raised(lane, tmp_path):
    loop = asyncio.get_running_loop()
    with pytest.raises(OSError, match="the first time"):
        await lane.call(loop, fail_once, (str(tmp_path / "a"),))
    assert await lane.call(loop, fail_once, (str(tmp_path / "b"),), retries=1) == "the second time"


def test_the_larger_priority_runs_first(run, lane, tmp_path):
    async def main():
        loop = asyncio.get_running_loop()
        gate, log = str(tmp_path / "gate"), str(tmp_path / "log")
        # both workers are held, and have a job to go on with
        held = [lane.call(loop, wait_for_file, (str(tmp_path / name),), priority=99) for name in ("gate", "gate2")]
        for name in ("gate", "gate2"):
            await begun(str(tmp_path / name))
        ranks = [1, 5, 3, 9, 2, 7, 4, 8, 6]
        jobs = [lane.call(loop, note, (log, str(rank)), priority=rank) for rank in ranks]
        await known_to_scheduler(lane, 11)
        Path(gate).touch()
        await asyncio.gather(*jobs)
        (tmp_path / "gate2").touch()
        await asyncio.gather(*held)
        return Path(log).read_text()

    # one worker alone took them, but for what dask had given the other to go on with
    order = run(main())
    assert sorted(order) == list("123456789")
    assert order.index("9") < order.index("1") and order.index("8") < order.index("2")


def test_a_cancelled_job_that_has_not_begun_never_runs(run, lane, tmp_path):
    async def main():
        loop = asyncio.get_running_loop()
        gates = [str(tmp_path / name) for name in "ab"]
        held = [lane.call(loop, wait_for_file, (gate,)) for gate in gates]
        for gate in gates:
            await begun(gate)
        doomed = [lane.call(loop, note, (str(tmp_path / "log"), "x")) for _ in range(10)]
        await known_to_scheduler(lane, 12)
        for job in doomed:
            job.cancel()
        await known_to_scheduler(lane, 2)
        for gate in gates:
            Path(gate).touch()
        await asyncio.gather(*held)
        await asyncio.gather(*(lane.call(loop, calls.same, (1,)) for _ in range(10)))
        assert not (tmp_path / "log").exists()

    run(main())
    assert lane.statistics().completed["cancelled"] == 10


async def test_a_job_whose_time_is_up_fails_and_leaves_no_place_taken(lane, tmp_path):
    loop = asyncio.get_running_loop()
    with pytest.raises(TimeoutError, match=r"within 0.3 s"):
        await lane.call(loop, wait_for_file, (str(tmp_path / "gate"),), timeout_s=0.3)
    while lane.statistics().running:
        await asyncio.sleep(0.01)
    (tmp_path / "gate").touch()


def test_connecting_does_not_block_the_loop(run, cluster):
    lane = DaskLane("cpu", LaneConfig(f"dask://{cluster.address}"))

    async def main():
        loop = asyncio.get_running_loop()
        began = time.thread_time()
        job = lane.call(loop, calls.same, (1,))
        took = time.thread_time() - began
        assert await job == 1
        return took

    # to connect takes 50 ms of a CPU, and to import dask 300
    assert run(main()) < 0.04
    lane.shutdown()


def test_a_refused_connection_is_one_clear_line(impatient):
    address = unused_address()
    lane = DaskLane("cpu", LaneConfig(f"dask://{address}"))
    jobs = [lane.submit(calls.same, 1) for _ in range(3)]
    for job in jobs:
        with pytest.raises(SchedulerLost, match=rf"^scheduler {address}: not reached within 0.5 s") as caught:
            job.result(WAIT_S)
        assert "\n" not in str(caught.value)
    lane.shutdown()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_scheduler_that_is_lost_fails_every_job_at_once(run, own_cluster, tmp_path, impatient, number):
    lane = DaskLane("cpu", LaneConfig(f"dask://{own_cluster.address}"))

    async def main():
        loop = asyncio.get_running_loop()
        gates = [str(tmp_path / name) for name in "ab"]
        jobs = [lane.call(loop, wait_for_file, (gate,), retries=3) for gate in gates]
        for gate in gates:
            await begun(gate)
        jobs += [lane.call(loop, calls.same, (1,)) for _ in range(20)]
        await known_to_scheduler(lane, 22)
        own_cluster.lose_scheduler(number)
        began = time.perf_counter()
        ends = await asyncio.gather(*jobs, return_exceptions=True)
        assert time.perf_counter() - began < 15, "dask's own patience is 30 s"
        assert {type(end) for end in ends} == {SchedulerLost}
        assert own_cluster.address in str(ends[0])
        for gate in gates:
            Path(gate).touch()
        with pytest.raises(SchedulerLost, match="not reached"):
            await lane.call(loop, calls.same, (1,))

    run(main())
    assert lane.statistics().running == 0
    lane.shutdown()


def test_after_a_loss_the_next_call_connects_anew_and_nothing_is_run_again(run, own_cluster, tmp_path):
    lane = DaskLane("cpu", LaneConfig(f"dask://{own_cluster.address}"))
    port = own_cluster.address.rpartition(":")[2]
    log = str(tmp_path / "log")

    async def main():
        loop = asyncio.get_running_loop()
        gates = [str(tmp_path / name) for name in "ab"]
        held = [lane.call(loop, wait_for_file, (gate,)) for gate in gates]
        for gate in gates:
            await begun(gate)
        queued = lane.call(loop, note, (log, "again"), retries=5)
        await known_to_scheduler(lane, 3)
        await asyncio.to_thread(restart, own_cluster, port)
        ends = await asyncio.gather(*held, queued, return_exceptions=True)
        assert {type(end) for end in ends} == {SchedulerLost}
        for gate in gates:
            Path(gate).touch()
        assert await lane.call(loop, calls.add, (1, 2)) == 3
        assert not os.path.exists(log)

    run(main())
    lane.shutdown()


def restart(cluster, port):
    """Everything goes, and another cluster comes to the same address."""
    cluster.stop()
    cluster.processes.clear()
    (cluster.folder / "scheduler.json").unlink(missing_ok=True)
    told = str(cluster.folder / "again.json")
    cluster._spawn("dask_scheduler", "--host", "127.0.0.1", "--port", port, "--scheduler-file", told)
    while not os.path.exists(told):
        time.sleep(0.02)
    cluster.add_worker()


def test_a_job_that_kills_its_workers_is_told_as_poison(own_cluster):
    lane = DaskLane("cpu", LaneConfig(f"dask://{own_cluster.address}"))
    for _ in range(2):
        own_cluster.add_worker()
    with pytest.raises(PoisonJob, match="4 workers of the cluster died"):
        lane.submit(die).result(WAIT_S)
    assert lane.statistics().completed["worker_lost"] == 1
    lane.shutdown()


def test_shutdown_waits_for_the_clusters_results(cluster):
    lane = DaskLane("cpu", LaneConfig(f"dask://{cluster.address}"))
    jobs = [lane.submit(calls.same, index) for index in range(20)]
    lane.shutdown()
    assert [job.result(0) for job in jobs] == list(range(20))
    for thread in [each for each in threading.enumerate() if each.name.startswith("penstock-cpu")]:
        thread.join(WAIT_S)
        assert not thread.is_alive()


def test_shutdown_can_cancel_what_the_cluster_has(cluster, tmp_path):
    lane = DaskLane("cpu", LaneConfig(f"dask://{cluster.address}"))
    job = lane.submit(wait_for_file, str(tmp_path / "gate"))
    while not (tmp_path / "gate.begun").exists():
        time.sleep(0.01)
    lane.shutdown(cancel_futures=True)
    assert job.cancelled()
    (tmp_path / "gate").touch()


EXITS = """
from penstock.config import LaneConfig
from penstock.executors.backends.dask import DaskLane
lane = DaskLane("cpu", LaneConfig("dask://{address}"))
print(lane.submit(pow, 2, 5).result(20))
"""


def test_a_program_that_never_shuts_its_lane_ends_all_the_same(cluster):
    line = [sys.executable, "-W", "error", "-c", EXITS.format(address=cluster.address)]
    ended = subprocess.run(line, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "32\n", "")


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setattr("penstock.executors.backends.dask.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'penstock\[dask\]'") as caught:
        DaskLane("cpu", LaneConfig("dask://127.0.0.1:8786"))
    assert "\n" not in str(caught.value)
