"""A subinterpreter (InterpreterPoolExecutor's, from 3.14 on) gets the pure loop: the extension is the main one's."""

import sys

import pytest

interpreters = pytest.importorskip("concurrent.interpreters", reason="concurrent.interpreters came with 3.14")

PROGRAM = """
import asyncio, sys
sys.path[:] = paths
import penstock
async def main():
    await asyncio.sleep(0)
    assert isinstance(asyncio.get_running_loop(), penstock.EventLoop)
asyncio.run(main(), loop_factory=penstock.EventLoop)
assert not penstock.loop.NATIVE
"""


def test_a_subinterpreter_runs_the_pure_loop():
    interpreter = interpreters.create()
    try:
        interpreter.prepare_main(paths=tuple(sys.path))
        interpreter.exec(PROGRAM)
    finally:
        interpreter.close()
