"""The short form of tests/soak/test_reloads.py: reloads, recycles and kills at twice a service's capacity."""

from pathlib import Path

import pytest

from tests.soak.kills import kill_parent, kill_workers
from tests.soak.reloads import soak
from tests.soak.service import Work

WORKS = {
    "recycling": Work(2, max_requests=400),
    "unix": Work(2, unix=True),
    "slow start": Work(2, start_s=1.0),
}


@pytest.mark.parametrize("work", WORKS.values(), ids=WORKS.keys())
def test_a_reload_under_overload_loses_no_request(tmp_path: Path, work: Work) -> None:
    outcome = soak(tmp_path, work, events=1)
    assert not outcome.problems(), outcome.output


def test_a_killed_worker_is_replaced_and_leaves_nothing(tmp_path: Path) -> None:
    killed = kill_workers(tmp_path, Work(2, unix=True), 1)
    assert not killed.problems(), killed


def test_a_killed_parent_leaves_no_process_no_file_and_a_free_address(tmp_path: Path) -> None:
    kill_parent(tmp_path, Work(2))
