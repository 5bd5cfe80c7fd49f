"""`penstock doctor`: the report, for people and as JSON, and its advice."""

import json
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import Command
from tests.support.waiting import wait_until


def test_the_report_names_every_fact_and_ends_well(penstock: Command) -> None:
    result = penstock("doctor")
    assert result.returncode == 0
    for name in ("python", "kernel", "loop", "poller", "io_uring", "cores", "open files", "somaxconn", "advice"):
        assert name in result.stdout
    assert "config: all defaults" in result.stdout


def test_the_pure_loop_is_a_weak_spot_with_its_reason(penstock: Command) -> None:
    result = penstock("doctor", "--json", PENSTOCK_PURE="1")
    report = json.loads(result.stdout)
    assert report["machine"]["loop"] == "pure"
    assert "PENSTOCK_PURE=1 is set" in report["advice"]["loop"]


def test_only_keys_that_differ_are_shown(penstock: Command) -> None:
    penstock.write("penstock.toml", "[loop]\nspin_us = 20\n")
    report = json.loads(penstock("doctor", "--json", "--set", "executors.dns.workers=2").stdout)
    assert report["config"] == {"loop.spin_us": 20, "executors.dns": "threads workers=2"}


def test_each_lane_is_shown_with_its_workers_and_why(penstock: Command) -> None:
    result = penstock("doctor", "--set", "executors.lanes.db=threads workers=8", PENSTOCK_CPUS="1")
    assert "PENSTOCK_CPUS 1" in result.stdout
    assert "cpu  processes  1 worker: 1 usable core (PENSTOCK_CPUS)" in result.stdout
    assert "dns  threads    5 workers: 1 usable core (PENSTOCK_CPUS) and 4 more" in result.stdout
    assert "db   threads    5 workers: 1 usable core (PENSTOCK_CPUS) and 4 more; 8 (config)" in result.stdout
    report = json.loads(penstock("doctor", "--json", PENSTOCK_CPUS="1").stdout)
    assert report["lanes"]["io"]["count"] == 5
    assert report["machine"]["cores"]["override_count"] == 1


def test_the_nearest_config_file_upwards_is_used(penstock: Command) -> None:
    penstock.write("penstock.toml", "[loop]\nspin_us = 20\n")
    script = penstock.write("deep/down/x.py", "")
    inner = Command(script.parent, penstock.warm)
    assert "loop.spin_us = 20" in inner("doctor").stdout


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="there are interpreters")
def test_a_config_that_cannot_work_here_is_advice(penstock: Command) -> None:
    report = json.loads(penstock("doctor", "--json", "--set", "executors.cpu=interpreters").stdout)
    assert report["advice"]["config"].startswith("lane 'cpu' = 'interpreters' needs Python 3.14 or later")
    penstock.write("program.py", "")
    penstock.refuses("run", "--set", "executors.cpu=interpreters", "program.py", code=2, says="needs Python 3.14")


def test_bad_arguments_are_one_line(penstock: Command) -> None:
    penstock.refuses("doctor", "--set", "loop.nonsense=1", code=2, says="loop.nonsense")
    penstock.refuses("doctor", "extra", code=2, says="extra")
    penstock.refuses("doctor", "--seconds", "0", "1", code=2, says="seconds above 0")


def test_the_cost_of_each_level_is_measured_when_asked_for(penstock: Command) -> None:
    report = json.loads(penstock("doctor", "--measure", "--json").stdout)
    assert list(report["telemetry"]) == ["off", "count", "time", "trace"]
    assert report["telemetry"]["off"]["task_percent"] == 100
    assert all(cost["task_ns"] > cost["step_ns"] > 0 for cost in report["telemetry"].values())
    assert "telemetry" not in json.loads(penstock("doctor", "--json").stdout)


def test_the_measured_costs_are_a_table_in_the_text(penstock: Command) -> None:
    lines = penstock("doctor", "--measure").stdout.splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("telemetry (kept by "))
    assert [line.split()[0] for line in lines[start + 1 : start + 6]] == ["level", "off", "count", "time", "trace"]


def test_a_running_process_is_observed_and_nothing_is_wrong_with_it(penstock: Command, tmp_path: Path) -> None:
    penstock.write("idle.py", "import asyncio\nasyncio.run(asyncio.sleep(3600))\n")
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    process = penstock.start("run", "idle.py", PENSTOCK_RUNTIME_DIR=str(runtime))
    wait_until(lambda: (runtime / f"{process.pid}-attach.sock").exists(), told="no attach socket")
    arguments = ("doctor", str(process.pid), "--seconds", "0.5")
    shown = penstock(*arguments, PENSTOCK_RUNTIME_DIR=str(runtime))
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.startswith("nothing is wrong\n")
    assert "process idle.py" in shown.stdout
    found = json.loads(penstock(*arguments, "--json", PENSTOCK_RUNTIME_DIR=str(runtime)).stdout)
    assert (found["first_line"], found["wrong"]) == ("nothing is wrong", [])
    assert found["figures"]["process"]["pid"] == process.pid


def test_a_process_that_is_not_there_is_one_line(penstock: Command) -> None:
    penstock.refuses("doctor", str(2**22 + 1), code=1, says=f"no penstock process {2**22 + 1}")
