"""`make soak`: reloads, recycles and kills under twice the capacity, at full size: SOAK_RELOADS (1000) in all.

A thousand take an hour with two busy CPUs. One case has a start of SOAK_START_S seconds (30).
"""

import os
from pathlib import Path

import pytest

from tests.soak.kills import kill_parent, kill_workers
from tests.soak.reloads import soak
from tests.soak.service import Work

EVENTS = int(os.environ.get("SOAK_RELOADS", "1000"))
START_S = float(os.environ.get("SOAK_START_S", "30"))
KILLS = max(2, EVENTS // 10)
LAST_S = 3600.0
WORKERS = pytest.mark.parametrize("workers", [1, 4])
UNIX = pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])

pytestmark = pytest.mark.timeout(LAST_S)


def check(folder: Path, work: Work, events: int) -> None:
    outcome = soak(folder, work, events=events)
    print(outcome)
    assert not outcome.problems(), outcome.output


@WORKERS
def test_reloads_lose_no_request(tmp_path: Path, workers: int) -> None:
    check(tmp_path, Work(workers), EVENTS // 4)


@WORKERS
def test_reloads_and_recycles_together_lose_no_request(tmp_path: Path, workers: int) -> None:
    # a worker lasts a second or two
    check(tmp_path, Work(workers, max_requests=800 // workers), EVENTS // 5)


def test_reloads_over_a_unix_socket_lose_no_request(tmp_path: Path) -> None:
    check(tmp_path, Work(4, unix=True, max_requests=200), EVENTS // 10)


@WORKERS
def test_reloads_lose_no_request_while_each_start_takes_long(tmp_path: Path, workers: int) -> None:
    check(tmp_path, Work(workers, start_s=START_S), 3)


@UNIX
def test_killed_workers_are_replaced_and_leave_nothing(tmp_path: Path, unix: bool) -> None:
    killed = kill_workers(tmp_path, Work(4, unix), KILLS)
    print(killed)
    assert not killed.problems()


@WORKERS
@UNIX
def test_a_killed_parent_leaves_no_process_no_file_and_a_free_address(tmp_path: Path, unix: bool, workers: int) -> None:
    kill_parent(tmp_path, Work(workers, unix))
