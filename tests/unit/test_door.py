"""The public door: what `import penstock` gives, and what it costs."""

import asyncio
import copy
import pickle
import subprocess
import sys

import pytest

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


MADE_BY = {
    "ConfigError": ("m", {"key": "k", "value": 1, "source": "s", "allowed": "a"}),
    "ReferenceNotFoundError": ("m", {"key": "k"}),
    "SlowPeer": ("m", {"reason": "idle", "peer": ("a", 1), "size_bytes": 2, "late_s": 1.5}),
    "WorkerLost": ("j", {"pid": 1, "signal": 9, "exit_code": None}),
    "PoisonJob": ("j", {"kills": 3, "pid": 1, "signal": None, "exit_code": 4}),
    "RemoteError": ("kind", "text", "traceback", {}),
    "SchedulerLost": ("a", "p", {}),
    "ExplorationFailed": ("m", {"seed": 1, "moment": None}),
    "Overloaded": (None, "full", 3, 4, 1.5, {"gate": "g"}),
}


@pytest.mark.parametrize("name", errors.__all__)
@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda problem: pickle.loads(pickle.dumps(problem))])
def test_every_public_exception_copies_and_pickles(name, again):
    *args, options = MADE_BY.get(name, ("m", {}))
    problem = getattr(errors, name)(*args, **options)
    problem.add_note("a note")
    found = again(problem)
    assert type(found) is type(problem)
    assert (str(found), found.args, vars(found)) == (str(problem), problem.args, vars(problem))


def test_importing_it_brings_little_beside_asyncio():
    done = subprocess.run([sys.executable, "-W", "error", "-c", PROGRAM], capture_output=True, text=True, check=True)
    new = set(done.stdout.split())
    assert not new & {"concurrent.futures.process", "multiprocessing", "tomllib"}


def test_the_loop_is_an_asyncio_loop():
    assert issubclass(penstock.EventLoop, asyncio.AbstractEventLoop)
    assert penstock.EventLoop(None).close() is None
