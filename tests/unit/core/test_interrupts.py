"""Ctrl-C at any instant: the loop can be run again, and has lost nothing; tests/soak/interrupts.py does it longer."""

import asyncio
import subprocess
import sys

import pytest

from penstock.loop import EventLoop


@pytest.mark.parametrize("loop", ["penstock", "product"])
def test_a_loop_that_is_interrupted_anywhere_runs_again_and_loses_nothing(loop):
    command = [sys.executable, "-m", "tests.soak.interrupts", "--seconds", "1.5", "--seed", "1", "--loop", loop]
    told = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert told.returncode == 0, told.stdout + told.stderr


def test_every_base_of_the_native_core_comes_before_asyncios():
    bases = EventLoop.__mro__
    core = [bases.index(base) for base in bases if base.__module__.startswith("penstock._core")]
    assert core
    assert max(core) < bases.index(asyncio.SelectorEventLoop)
