"""One module of `test.test_asyncio` on one loop: starts child processes until every test of it has an outcome.

A crash or a hang costs one test, named from the stream, and the rest of the module runs in a new process.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parent.parent / "src"
TEST_TIMEOUT_S = 60.0
MODULE_TIMEOUT_S = 480.0
MAX_CRASHES = 12
STDERR_TAIL_CHARS = 3000


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one test ended: outcome is passed, failed, skipped, crashed or hung."""

    outcome: str
    detail: str = ""
    took_s: float = 0.0
    on_loop: bool = False


@dataclass(slots=True)
class Report:
    """The output of a child's stream so far."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    unfinished: str | None = None
    done: bool = False


def child_environment(config: Mapping[str, str]) -> dict[str, str]:
    """The environment of a child: finds an installed penstock, or this checkout's, and no config but the given one."""
    inherited = {name: value for name, value in os.environ.items() if not _configures(name)}
    environment = inherited | config
    if not _is_installed():
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(SOURCE), environment.get("PYTHONPATH")]))
    return environment


def _configures(name: str) -> bool:
    return name == "PYTHONASYNCIODEBUG" or (name.startswith("PENSTOCK_") and name != "PENSTOCK_PURE")


def _is_installed() -> bool:
    probe = [sys.executable, "-c", "import penstock"]
    return subprocess.run(probe, capture_output=True, cwd="/", check=False).returncode == 0


def read_report(lines: Iterable[str]) -> Report:
    report = Report()
    for line in lines:
        record = json.loads(line)
        if "start" in record:
            report.unfinished = record["start"]
        elif "end" in record:
            _take_outcome(report, record)
        else:
            report.done = True
    return report


def _take_outcome(report: Report, record: dict[str, Any]) -> None:
    name = record.pop("end")
    report.unfinished = None
    report.outcomes[name] = Outcome(**record)


def run_module(
    module: str, loop: str, environment: dict[str, str], only: Iterable[str] = (), left_out: Iterable[str] = ()
) -> dict[str, Outcome]:
    """Run `module` on `loop` ("asyncio" or "penstock"), all of it or `only` some tests, without those `left_out`."""
    outcomes: dict[str, Outcome] = {}
    for _ in range(MAX_CRASHES):
        job = {"module": module, "loop": loop, "skip": sorted({*outcomes, *left_out}), "only": sorted(only)}
        report, status, stderr = _run_child(job, environment)
        outcomes.update(report.outcomes)
        if report.done:
            return outcomes
        name = report.unfinished or f"{module} (import or clean-up)"
        outcomes[name] = Outcome(*_describe_crash(status, stderr))
        if report.unfinished is None:
            return outcomes
    outcomes[f"{module} (gave up)"] = Outcome("crashed", f"more than {MAX_CRASHES} crashes: the rest did not run")
    return outcomes


def _run_child(job: dict[str, Any], environment: dict[str, str]) -> tuple[Report, int | None, str]:
    with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
        path = Path(folder, "report.jsonl")
        full = {**job, "report": str(path), "test_timeout_s": TEST_TIMEOUT_S}
        status, stderr = _wait_for_child(json.dumps(full), folder, environment)
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return read_report(lines), status, stderr


def _wait_for_child(job: str, folder: str, environment: dict[str, str]) -> tuple[int | None, str]:
    command = [sys.executable, str(HERE / "child.py"), job]
    log = Path(folder, "stderr")
    with log.open("wb") as stderr:
        child = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stderr,
            stderr=stderr,
            start_new_session=True,
        )
        status = _status_in_time(child)
    with suppress(ProcessLookupError):
        # what a test that hung or crashed has forked
        os.killpg(child.pid, signal.SIGKILL)
    return status, log.read_text(encoding="utf-8", errors="replace")[-STDERR_TAIL_CHARS:]


def _status_in_time(child: subprocess.Popen[bytes]) -> int | None:
    try:
        return child.wait(MODULE_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
        return None


def _describe_crash(status: int | None, stderr: str) -> tuple[str, str]:
    if status is None:
        return "hung", f"the module ran over {MODULE_TIMEOUT_S:g} s\n{stderr}"
    if "Timeout (" in stderr:
        return "hung", f"no end after {TEST_TIMEOUT_S:g} s\n{stderr}"
    return "crashed", f"the process ended with status {status}\n{stderr}"
