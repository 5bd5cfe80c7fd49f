"""The doctor's lanes: how many workers, and how each number was reached."""

import concurrent.futures

import pytest

from penstock.cli.workers import count_workers, render_workers
from penstock.config import ExecutorsConfig, LaneConfig
from penstock.executors.backends.interpreters import _make_pool
from penstock.executors.cores import Cores, usable_cores

AFFINITY = Cores(chosen=4, affinity=4, quota_cores=None, override=None)
QUOTA = Cores(chosen=2, affinity=8, quota_cores=1.5, override=None)
OVERRIDE = Cores(chosen=1, affinity=8, quota_cores=None, override=1)


@pytest.mark.parametrize(
    ("cores", "reason"),
    [
        (AFFINITY, "4 usable cores (affinity)"),
        (QUOTA, "2 usable cores (cgroup quota of 1.5, rounded up)"),
        (OVERRIDE, "1 usable core (PENSTOCK_CPUS)"),
    ],
)
def test_processes_are_as_many_as_the_usable_cores(cores: Cores, reason: str) -> None:
    told = count_workers(ExecutorsConfig(), cores)["cpu"]
    assert (told.kind, told.count, told.limit, told.reason) == ("processes", cores.chosen, cores.chosen, reason)


def test_threads_are_a_few_more_and_grow() -> None:
    told = count_workers(ExecutorsConfig(), QUOTA)["io"]
    assert (told.count, told.limit) == (6, 64)
    assert told.reason.startswith("2 usable cores (cgroup quota of 1.5, rounded up) and 4 more; 64")


@pytest.mark.parametrize(
    ("lane", "count", "limit", "reason"),
    [
        (LaneConfig(workers=3), 3, 3, "config"),
        (LaneConfig(workers=40), 8, 40, "4 usable cores (affinity) and 4 more; 40 (config)"),
        (LaneConfig(min_workers=20), 20, 64, "min_workers; 64"),
        (LaneConfig("processes", workers=7), 7, 7, "config"),
        (LaneConfig("processes", min_workers=6), 6, 6, "min_workers, more than the 4 usable cores (affinity)"),
        (LaneConfig("interpreters"), 4, 4, "4 usable cores (affinity)"),
        (LaneConfig("dask://host:8786"), None, None, "the cluster decides"),
        (LaneConfig("dask://host:8786", workers=9), 9, 9, "config"),
        (LaneConfig("app:pool"), None, None, "the executor decides"),
    ],
)
def test_how_each_kind_comes_to_its_number(lane: LaneConfig, count: int, limit: int, reason: str) -> None:
    told = count_workers(ExecutorsConfig(lanes={"own": lane}), AFFINITY)["own"]
    assert (told.count, told.limit) == (count, limit)
    assert told.reason.startswith(reason)


def test_each_lane_has_a_line() -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        lines = render_workers(count_workers(ExecutorsConfig(lanes={"own": LaneConfig(pool)}), AFFINITY))
    assert [line.split()[0] for line in lines] == ["io", "cpu", "dns", "own"]
    assert lines[-1].endswith("executor (ThreadPoolExecutor)  the executor decides")


def test_a_lane_of_interpreters_has_as_many_as_the_doctor_says(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    class Pool:
        def __init__(self, count: int, **options: object) -> None:
            made.append(count)

    monkeypatch.setattr(concurrent.futures, "InterpreterPoolExecutor", Pool, raising=False)
    config = LaneConfig(kind="interpreters", min_workers=usable_cores().chosen + 3)
    _make_pool("cpu", config)
    told = count_workers(ExecutorsConfig(cpu=config), usable_cores())["cpu"]
    assert made == [told.count]
