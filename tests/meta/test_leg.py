"""A leg of the tests: the few that failed are run once more, and the last line names them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

LEG = Path(__file__).parents[1] / "leg.py"
FLAKY = """
import os, signal, sys
from pathlib import Path
import pytest

def fails(times, name, how=lambda: pytest.fail("on purpose")):
    log = Path(__file__).with_name(name)
    with log.open("a") as file:
        file.write("x")
    if log.stat().st_size <= times:
        how()

def test_that_passes():
    pass
"""


def leg(folder: Path, tests: str, *options: str, flags: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    (folder / "pytest.ini").write_text("[pytest]\nxfail_strict = true\n")
    (folder / "test_flaky.py").write_text(FLAKY + tests)
    command = [
        sys.executable,
        *flags,
        str(LEG),
        "-q",
        "-p",
        "no:penstock",
        "-p",
        "no:asyncio",
        *options,
        "test_flaky.py",
    ]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False, timeout=100)


def failing(count: int, times: int) -> str:
    return "\n".join(f"def test_{at}(): fails({times}, 'log_{at}')" for at in range(count))


def runs(folder: Path, at: int = 0) -> int:
    return (folder / f"log_{at}").stat().st_size


def test_a_leg_without_a_failure_says_nothing_more(tmp_path: Path) -> None:
    done = leg(tmp_path, failing(3, times=0))
    assert (done.returncode, "again" in done.stdout) == (0, False)


@pytest.mark.parametrize(("count", "tests"), [(1, "1 test"), (3, "3 tests")])
def test_a_few_that_failed_once_are_named_in_the_last_line(tmp_path: Path, count: int, tests: str) -> None:
    done = leg(tmp_path, failing(count, times=1))
    names = ", ".join(f"test_flaky.py::test_{at}" for at in range(count))
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1] == f"{tests} passed only when they were run again: {names}"
    # the failure is shown
    assert "on purpose" in done.stdout


def test_what_fails_again_fails_the_leg(tmp_path: Path) -> None:
    done = leg(tmp_path, failing(1, times=2) + "\ndef test_other(): fails(1, 'log_other')\n")
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "failed when run again, too: test_flaky.py::test_0"
    assert runs(tmp_path) == 2


def test_more_than_three_are_not_run_again(tmp_path: Path) -> None:
    done = leg(tmp_path, failing(4, times=1))
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "4 tests failed, none is run again: at most 3 are"
    assert runs(tmp_path) == 1


@pytest.mark.parametrize("how", ["lambda: os.kill(os.getpid(), signal.SIGSEGV)", "lambda: os._exit(1)"])
def test_a_crash_is_not_run_again(tmp_path: Path, how: str) -> None:
    done = leg(tmp_path, f"def test_0(): fails(1, 'log_0', {how})")
    assert done.returncode not in (0, 2)
    assert runs(tmp_path) == 1


@pytest.mark.parametrize("how", ["lambda: os.kill(os.getpid(), signal.SIGSEGV)", "lambda: os._exit(0)"])
def test_a_crash_of_the_second_run_fails_the_leg(tmp_path: Path, how: str) -> None:
    tests = f"def test_0():\n    fails(1, 'log_0')\n    fails(1, 'log_1', {how})"
    assert leg(tmp_path, tests).returncode not in (0, 2)


def test_errors_of_a_set_up_are_run_again_and_those_of_a_file_are_not(tmp_path: Path) -> None:
    tests = "@pytest.fixture\ndef made(): fails(1, 'log_0')\ndef test_0(made): pass"
    assert leg(tmp_path, tests).returncode == 0
    assert leg(tmp_path, "fails(1, 'log_1')").returncode == 2


def test_the_options_of_the_leg_and_of_the_interpreter_hold_for_the_second_run(tmp_path: Path) -> None:
    tests = "def test_0():\n    assert not sys.flags.optimize - 1\n    fails(1, 'log_0')\ndef test_1(): pytest.fail()"
    options = ("-W", "ignore::pytest.PytestConfigWarning", "-k", "test_0")
    done = leg(tmp_path, tests, *options, flags=("-O",))
    assert done.returncode == 0, done.stdout
    assert runs(tmp_path) == 2
