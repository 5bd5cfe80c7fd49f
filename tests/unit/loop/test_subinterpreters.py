"""A subinterpreter gets the pure loop: the extension is the main interpreter's."""

import subprocess
import sys

import pytest

from penstock.loop import NATIVE

PROGRAM = """
import asyncio, sys
sys.path[:] = paths
import penstock
async def main():
    await asyncio.sleep(0)
    assert isinstance(asyncio.get_running_loop(), penstock.EventLoop)
with asyncio.Runner(loop_factory=penstock.EventLoop) as runner:
    runner.run(main())
assert not penstock.loop.NATIVE
"""


# as mod_wsgi and uWSGI make them; 3.13 has given the module another name, and its functions too
SHARING = """
import sys
import penstock.loop
if sys.version_info < (3, 13):
    import _xxsubinterpreters as interpreters
    run, number = interpreters.run_string, interpreters.create(isolated=False)
else:
    import _interpreters as interpreters
    run, number = interpreters.exec, interpreters.create("legacy")
failed = run(number, f"paths = {sys.path!r}\\n" + PROGRAM)
assert not failed, failed
interpreters.destroy(number)
penstock.run(__import__("asyncio").sleep(0))
assert penstock.loop.NATIVE
"""


@pytest.mark.skipif(not NATIVE, reason="the pure loop is everyone's")
def test_a_subinterpreter_that_shares_the_gil_runs_the_pure_loop():
    program = f"PROGRAM = {PROGRAM!r}\n{SHARING}"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (told.returncode, told.stdout, told.stderr) == (0, "", "")


def test_an_isolated_subinterpreter_runs_the_pure_loop():
    interpreters = pytest.importorskip("concurrent.interpreters", reason="concurrent.interpreters came with 3.14")
    interpreter = interpreters.create()
    try:
        interpreter.prepare_main(paths=tuple(sys.path))
        interpreter.exec(PROGRAM)
    finally:
        interpreter.close()
