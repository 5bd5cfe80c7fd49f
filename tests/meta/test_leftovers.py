"""Leftovers of a failed test: its neighbours do not fail with it. Retries are told in the summary."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
START = """
import asyncio, socket, threading
import pytest
from tests.support.retried import note_retry

class Cycle:
    def __init__(self, kept=None):
        self.kept, self.me = kept, self
    def __del__(self):
        if self.kept is None:
            raise RuntimeError("of a cycle that is collected")

async def never_awaited():
    pass

def test_before(): pass
"""


def run(folder: Path, tests: str) -> str:
    """Run the tests with the plugins, beside two that pass; return the last lines' counts."""
    (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    (folder / "test_some.py").write_text(f"{START}\n{tests}\ndef test_after(): pass\n")
    plugins = ["-p", "no:penstock", "-p", "no:asyncio", "-p", "tests.support.leftovers", "-p", "tests.support.retried"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *plugins, "test_some.py"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False, timeout=100)
    return done.stdout


LEFT = ("never_awaited()", "socket.socket()", "asyncio.new_event_loop()", "Cycle()", "Cycle(socket.socket())")
FAILURES = (
    "assert not 'on purpose'",
    "raise ExceptionGroup('', [ValueError()])",
    "try: leaves(); \n    except ValueError as error: raise KeyError from error",
)
EACH = """
def test_that_fails_{at}():
    def leaves():
        kept = {left}
        raise ValueError
    kept = {left}
    {failure}

def test_after_{at}(): pass
"""


def test_a_failed_test_takes_no_neighbour_with_it(tmp_path: Path) -> None:
    ways = list(itertools.product(LEFT, FAILURES))
    output = run(tmp_path, "".join(EACH.format(at=at, left=left, failure=how) for at, (left, how) in enumerate(ways)))
    assert f"{len(ways)} failed, {len(ways) + 2} passed in" in output
    assert "test_after" not in output


def test_what_a_fixture_of_a_failed_test_leaves_is_its_own(tmp_path: Path) -> None:
    tests = """
@pytest.fixture
def made(): return socket.socket()
def test_that_fails(made): assert 0
@pytest.fixture
def ends_badly():
    yield (kept := socket.socket())
    raise ValueError
def test_whose_teardown_fails(ends_badly): pass
"""
    assert "1 failed, 3 passed, 1 error in" in run(tmp_path, tests)


def test_a_thread_of_a_failed_test_that_raises_later_fails_no_neighbour(tmp_path: Path) -> None:
    tests = """
go_on, threads = threading.Event(), []
def raises():
    go_on.wait()
    raise ValueError("from a thread")
def test_that_fails():
    threads.append(threading.Thread(target=raises))
    threads[0].start()
    assert 0
def test_meanwhile():
    go_on.set()
    threads[0].join()
"""
    output = run(tmp_path, tests)
    assert "1 failed, 3 passed in" in output


def test_garbage_of_a_test_that_passed_is_its_own_error(tmp_path: Path) -> None:
    output = run(tmp_path, "def test_that_litters(): Cycle()")
    assert "3 passed, 1 error in" in output
    assert "ERROR test_some.py::test_that_litters" in output


def test_retries_are_told_by_test_and_reason(tmp_path: Path) -> None:
    tests = "def test_again():\n    for _ in range(2): note_retry('too slow')"
    assert "RETRIED [2] test_some.py::test_again: too slow" in run(tmp_path, tests).splitlines()
