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
import logging
lines = []
handler = logging.Handler()
handler.emit = lambda record: lines.append(record.getMessage())
logging.getLogger("penstock").addHandler(handler)
penstock.run(asyncio.sleep(0))
penstock.run(asyncio.sleep(0))
assert lines == [
    "a subinterpreter runs asyncio's selector loop: penstock's native loop loads in the main interpreter only"
], lines
try:
    penstock.new_event_loop(penstock.Config(loop=penstock.LoopConfig(poller="epoll")))
except penstock.errors.ConfigError as error:
    assert "does not load in a subinterpreter" in str(error), error
else:
    raise AssertionError("epoll is refused")
"""


# as mod_wsgi and uWSGI make them; 3.13 has given the module another name, and its functions too
WITHIN = """
import sys
import penstock.loop
if sys.version_info < (3, 13):
    import _xxsubinterpreters as interpreters
    run, number = interpreters.run_string, interpreters.create(isolated=False)
else:
    import _interpreters as interpreters
    run, number = interpreters.exec, interpreters.create(config)
failed = run(number, f"paths = {sys.path!r}\\n" + PROGRAM)
assert not failed, failed
interpreters.destroy(number)
penstock.run(__import__("asyncio").sleep(0))
assert penstock.loop.NATIVE
"""


# A stall is told with the stack of the loop's thread, while an interpreter with a GIL of its own makes and ends frames.
STALLING = (
    """
import _interpreters, threading, time
import penstock

BUSY = """
    + repr("""
def deep(n):
    return 0 if n == 0 else 1 + deep(n - 1)
for _ in range(30000):
    deep(40)
""")
    + """

def run_other():
    number = _interpreters.create()
    _interpreters.exec(number, BUSY)
    _interpreters.destroy(number)

async def main():
    other = threading.Thread(target=run_other)
    other.start()
    while other.is_alive():
        time.sleep(0.11)
        await __import__("asyncio").sleep(0)
    other.join()

penstock.run(main())
"""
)


def assert_ends_well(program):
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (told.returncode, told.stdout, told.stderr) == (0, "", "")


@pytest.mark.skipif(not NATIVE, reason="the pure loop is everyone's")
@pytest.mark.parametrize("config", ["legacy", "isolated"])
def test_a_subinterpreter_runs_the_pure_loop(config):
    if config == "isolated" and sys.version_info < (3, 13):
        pytest.skip("the module that makes such an interpreter has another name")
    assert_ends_well(f"PROGRAM, config = {PROGRAM!r}, {config!r}\n{WITHIN}")


@pytest.mark.skipif(sys.version_info < (3, 13), reason="the module that makes such an interpreter has another name")
def test_a_stall_beside_an_interpreter_with_its_own_gil_is_survived():
    assert_ends_well(STALLING)


def test_an_isolated_subinterpreter_runs_the_pure_loop():
    interpreters = pytest.importorskip("concurrent.interpreters", reason="concurrent.interpreters came with 3.14")
    interpreter = interpreters.create()
    try:
        interpreter.prepare_main(paths=tuple(sys.path))
        interpreter.exec(PROGRAM)
    finally:
        interpreter.close()
