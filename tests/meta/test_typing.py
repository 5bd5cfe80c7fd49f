"""What a type checker makes of calls: the right ones pass, with their results' types; the wrong ones are refused."""

import subprocess
import sys

import pytest

from tests.meta.source import ROOT

CALLS = ROOT / "tests/typing/calls.py"


def check(path):
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", str(path)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout


def test_calls_are_checked_against_the_function_that_is_called(tmp_path):
    pytest.importorskip("mypy")
    assert check(CALLS) == ""
    # and not because nothing is looked at
    naked = tmp_path / "naked.py"
    text = CALLS.read_text()
    naked.write_text("\n".join(line.partition("  # type: ignore")[0] for line in text.splitlines()))
    assert len({line.split(":")[1] for line in check(naked).splitlines()}) >= text.count("# type: ignore[")
