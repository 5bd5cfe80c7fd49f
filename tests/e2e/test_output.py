"""The output of a command: none to a closed pipe, one line about a full disk."""

import os
import subprocess
import sys

import pytest

from tests.e2e.conftest import Command, environment

COMMANDS = [["doctor"], ["doctor", "--json"], ["serve", "--help"], ["run", "--help"], ["--help"], ["--version"]]
HOW = pytest.mark.parametrize("unbuffered", ["", "1"])


def written_to(stdout: int, penstock: Command, arguments: list[str], unbuffered: str) -> tuple[int, str]:
    """Return the exit code and stderr of a command."""
    done = subprocess.run(
        [sys.executable, "-m", "penstock", *arguments],
        cwd=penstock.folder,
        env=environment() | {"PYTHONUNBUFFERED": unbuffered},
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stderr


@HOW
@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_reader_that_has_gone_ends_the_command_without_a_word(
    penstock: Command, arguments: list[str], unbuffered: str
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        # as a shell shows a process that SIGPIPE ended
        assert written_to(writer, penstock, arguments, unbuffered) == (141, "")
    finally:
        os.close(writer)


@HOW
@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_full_disk_is_one_line_and_exit_code_1(penstock: Command, arguments: list[str], unbuffered: str) -> None:
    with open("/dev/full", "w") as full:
        code, stderr = written_to(full.fileno(), penstock, arguments, unbuffered)
    command = (
        " ".join(["penstock", *arguments[: len(arguments) - 1]]) if "doctor" not in arguments else "penstock doctor"
    )
    assert (code, stderr) == (1, f"{command}: cannot write to stdout: No space left on device\n")


def test_where_not_even_the_error_can_be_written_the_exit_code_tells(penstock: Command) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "penstock", "run", "--nonsense"], env=environment(), stderr=full, timeout=60
        )
    assert done.returncode == 2
