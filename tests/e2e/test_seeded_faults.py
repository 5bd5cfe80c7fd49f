"""Real programs, each with one fault that the first line names, and healthy programs of which nothing is said.

Stalls for lack of a CPU are the machine's, and never count against a program here.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from penstock.monitor.checkup import observe, sample
from penstock.monitor.client import AttachedProcess, processes
from penstock.monitor.history import History
from penstock.monitor.rules import Diagnosis, diagnose, first_line
from tests.e2e.conftest import environment
from tests.support.waiting import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="attaches by Unix sockets and /proc")

HERE = Path(__file__).parent / "seeded"
PATIENCE_S = 45.0
# the detectors look often, so that a test need not wait for minutes
QUICK = ("tasks.check_s=0.1", "tasks.stuck_s=0.3", "executors.lanes.db=threads workers=2")
# a lack of CPU, which these tests share with others
OF_THE_MACHINE = {"descheduled", "throttled"}


@contextmanager
def running(path: Path, runtime: Path, *settings: str) -> Iterator[AttachedProcess]:
    """Run a program by `penstock run`, and yield a connection to it."""
    runtime.mkdir(mode=0o700, exist_ok=True)
    os.environ["PENSTOCK_RUNTIME_DIR"] = str(runtime)
    words = [word for setting in (*QUICK, *settings) for word in ("--set", setting)]
    errors = runtime / "stderr.txt"
    with errors.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "penstock", "run", *words, str(path)],
            env=environment() | {"PENSTOCK_RUNTIME_DIR": str(runtime)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
        )
    try:
        wait_until(
            lambda: process.pid in processes() or process.poll() is not None,
            PATIENCE_S,
            every_s=0.02,
            told=lambda: f"{list(runtime.iterdir())} {threads(process.pid)} {errors.read_text()}",
        )
        assert process.poll() is None, f"{path.name} has ended"
        with AttachedProcess(process.pid, within_s=PATIENCE_S) as attached:
            yield attached
    finally:
        # its clients too
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def threads(pid: int) -> list[str]:
    """Return the names and states of a process's threads, for the message of a failed test."""
    return [path.read_text().partition(")")[0] for path in Path(f"/proc/{pid}/task").glob("*/stat")]


def blamed(history: History) -> list[Diagnosis]:
    """Return what is wrong with the program itself."""
    return [each for each in diagnose(history) if each.kind not in OF_THE_MACHINE]


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PENSTOCK_RUNTIME_DIR", "")
    return tmp_path / "runtime"


def observed_until(attached: AttachedProcess, kind: str, words: str) -> History:
    """Return the history of observation until the first line names this kind of fault, in these words."""
    history = History(most=100)
    end_s = time.monotonic() + PATIENCE_S
    while True:
        sample(attached, history, silent_s=PATIENCE_S)
        found = blamed(history)
        if found and found[0].kind == kind and words in found[0].sentence:
            return history
        assert time.monotonic() < end_s, f"not {kind}: {[each.line for each in diagnose(history)]}"
        time.sleep(0.25)


# program -> the kind of the first diagnosis, and words of its line
FAULTS = {
    "blocking_call": ("blocked", "time.sleep in blocking_call.py:8"),
    "python_loop": ("blocked", "spin in python_loop.py:"),
    "gil_held": ("gil", "sum in gil_held.py:8"),
    "gil_held_by_a_thread": ("gil", "another thread than the loop's"),
    "growing": ("growing", "growing.py:14"),
    "lane_full": ("lane_full", "lane 'db' is exhausted: all 2 workers busy"),
    "dns_full": ("dns_full", "host names wait in lane 'dns'"),
    "limit_low": ("limit_low", "gate 'http' refuses while the process is idle"),
    "deadlines": ("deadlines", "jobs in lane 'io' miss their deadlines"),
    "await_cycle": ("await_cycle", "'orders'"),
    "stuck_lock": ("stuck", "task 'orders' made in stuck_lock.py:22"),
    "gc_storm": ("collections", "garbage collections"),
    "unretrieved": ("exception_unretrieved", "at unretrieved.py:"),
    "lost_tasks": ("destroyed_pending", "made in lost_tasks.py:13"),
    "never_awaited": ("never_awaited", "never_awaited.py:"),
    "overloaded": ("overloaded", "busy for"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_the_first_line_names_the_fault(name: str, runtime: Path) -> None:
    kind, words = FAULTS[name]
    with running(HERE / "faults" / f"{name}.py", runtime) as attached:
        found = blamed(observed_until(attached, kind, words))
    print(first_line(found))
    assert "the text of an exception" not in str([each.as_json() for each in found])


def test_a_process_that_gets_no_cpu_is_not_blamed(runtime: Path) -> None:
    with running(HERE / "faults" / "steady.py", runtime) as attached:
        attached.ask("about")
        for _ in range(2):
            os.kill(attached.pid, signal.SIGSTOP)
            time.sleep(0.4)
            os.kill(attached.pid, signal.SIGCONT)
            time.sleep(0.1)
        history = History()
        wait_until(lambda: sample(attached, history) or diagnose(history), PATIENCE_S, every_s=0.1)
        found = diagnose(history)
    assert [each.kind for each in found] == ["descheduled"]
    assert "the program did not cause it" in first_line(found)


def test_a_stopped_process_is_said_to_be_stopped(runtime: Path) -> None:
    with running(HERE / "faults" / "steady.py", runtime) as attached:
        attached.ask("about")
        os.kill(attached.pid, signal.SIGSTOP)
        history = observe(attached, 0.1, silent_s=0.5)
    assert first_line(diagnose(history)).startswith("the process is stopped by a signal (no answer for 500 ms)")


@pytest.mark.parametrize("name", sorted(path.stem for path in (HERE / "healthy").glob("*.py")))
def test_of_a_healthy_program_under_load_nothing_is_said(name: str, runtime: Path) -> None:
    settings = ("executors.lanes.db=threads workers=6",)
    with running(HERE / "healthy" / f"{name}.py", runtime, *settings) as attached:
        history = observe(attached, 4.0)
    shown = history.over(4.0)
    assert shown.loops[0].turns_per_s > 1
    assert [each.line for each in blamed(history)] == []
