"""The short form of tests/soak/test_reloads.py: reloads, recycles and kills at twice a service's capacity."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.soak.kills import kill_parent, kill_workers
from tests.soak.reloads import soak
from tests.soak.service import Work

# Under uvicorn's supervisor a service of one worker cannot be reloaded, and a killed parent leaves its Unix socket.
needs_own_supervisor = pytest.mark.skipif(
    find_spec("penstock.runtime.supervisor.supervisor") is None, reason="the supervisor is uvicorn's"
)
WORKS = [
    pytest.param(Work(2, max_requests=400), id="recycling"),
    pytest.param(Work(1, unix=True, start_s=2.0), id="slow start", marks=needs_own_supervisor),
]


@pytest.mark.parametrize("work", WORKS)
def test_a_reload_under_overload_loses_no_request(tmp_path: Path, work: Work) -> None:
    outcome = soak(tmp_path, work, events=1)
    assert not outcome.problems(), outcome.output


def test_a_killed_worker_is_replaced_and_leaves_nothing(tmp_path: Path) -> None:
    killed = kill_workers(tmp_path, Work(2), 1)
    assert not killed.problems(), killed


@pytest.mark.parametrize(
    "work", [Work(2), pytest.param(Work(2, unix=True), marks=needs_own_supervisor)], ids=["tcp", "unix"]
)
def test_a_killed_parent_leaves_no_process_no_file_and_a_free_address(tmp_path: Path, work: Work) -> None:
    kill_parent(tmp_path, work)
