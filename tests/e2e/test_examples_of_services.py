"""The examples of several processes: two services behind a real nginx, and a lane on a real Dask cluster."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from statistics import mean, median
from typing import Any

import pytest

from tests.e2e.conftest import PATIENCE_S, ROOT, environment

SECONDS, SETTLED = 16, 6
# examples/two_services: ten requests at a time, 0.1 s each
CAPACITY_PER_S, SLOTS = 100, 10


def lines_of(example: str, *arguments: str) -> list[str]:
    result = subprocess.run(
        [sys.executable, str(ROOT / "examples" / example), *arguments],
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S * 3,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout.splitlines()


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
def test_two_services_share_a_dependency_behind_nginx_without_talking() -> None:
    title, *lines = lines_of("two_services", str(SECONDS))
    assert "100 requests a second, 400 are asked for" in title
    told: list[dict[str, Any]] = [json.loads(line) for line in lines]
    assert len(told) == SECONDS
    for second in told:
        # refusals are passed on, each with the time to come back, and nothing else goes wrong
        assert second["503 with retry-after"] == second["refused"], second
        assert set(second) <= {"second", "done", "refused", "limits", "asked", "503 with retry-after"}, second
    settled = told[-SETTLED:]
    assert mean(second["done"] for second in settled) > 0.8 * CAPACITY_PER_S, settled
    assert mean(second["refused"] for second in settled) > CAPACITY_PER_S, settled
    # both have found a limit: no service starves the other, and what waits in the dependency is bounded
    for limits in zip(*(second["limits"] for second in settled), strict=True):
        assert 2 <= median(limits) <= 3 * SLOTS, settled


@pytest.mark.skipif(importlib.util.find_spec("distributed") is None, reason="dask.distributed is not installed")
def test_one_setting_moves_the_cpu_lane_to_a_dask_cluster() -> None:
    drawn, own = lines_of("dask_lane")
    found = re.fullmatch(r"8 thumbnails by the lane cpu, drawn in processes (\d+(?:, \d+)*)", drawn)
    assert found is not None, drawn
    assert own.removeprefix("the service itself is process ") not in found[1].split(", ")
