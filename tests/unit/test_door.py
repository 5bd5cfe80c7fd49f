"""The public door: what `import penstock` gives, and what it costs."""

import asyncio
import subprocess
import sys

import penstock
from penstock import errors

PROGRAM = """
import sys, asyncio
before = set(sys.modules)
import penstock
new = set(sys.modules) - before
print(*sorted(name for name in new if not name.startswith("penstock")))
"""


def test_every_public_name_is_there():
    assert [name for name in penstock.__all__ if not hasattr(penstock, name)] == []
    assert sorted(penstock.__all__) == penstock.__all__


def test_every_public_exception_is_a_penstock_error():
    found = [getattr(errors, name) for name in errors.__all__]
    # the one that a job's own `except Exception` lets pass
    found.remove(errors.JobInterrupted)
    assert all(issubclass(error, errors.PenstockError) for error in found)
    assert all(error.__doc__ for error in found)


def test_importing_it_brings_little_beside_asyncio():
    done = subprocess.run([sys.executable, "-W", "error", "-c", PROGRAM], capture_output=True, text=True, check=True)
    new = set(done.stdout.split())
    assert not new & {"concurrent.futures.process", "multiprocessing", "tomllib"}


def test_the_loop_is_an_asyncio_loop():
    assert issubclass(penstock.EventLoop, asyncio.AbstractEventLoop)
    assert penstock.EventLoop(None).close() is None
