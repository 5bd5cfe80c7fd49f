"""The public door: what `import penstock` gives, and what it costs."""

import asyncio
import copy
import importlib
import pickle
import subprocess
import sys

import pytest

import penstock
from penstock import errors

PACKAGES = "executors", "integrations", "pressure", "pressure.limits", "tasks", "telemetry", "testing"
BEFORE_ANY_RUN = """
import functools, rlcompleter, sys
import penstock
path = sys.argv[1]
package = functools.reduce(getattr, path.split("."), penstock) if path else penstock
missing = set(package.__all__) - set(dir(package))
completer = rlcompleter.Completer({"penstock": penstock})
prefix = f"penstock.{path}." if path else "penstock."
found = set()
while (word := completer.complete(prefix, len(found))) is not None:
    found.add(word)
missing |= {name for name in package.__all__ if not name.startswith("_")
            and not any(word.rstrip("()") == prefix + name for word in found)}
print(missing, [name for name in dir(package) if not hasattr(package, name)])
try:
    package.nonsense
except AttributeError as problem:
    print(problem)
"""
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


@pytest.mark.parametrize("path", ["", *PACKAGES])
def test_a_package_lists_its_names_before_any_run_and_each_is_there(path):
    command = [sys.executable, "-W", "error", "-c", BEFORE_ANY_RUN, path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    name = f"penstock.{path}".rstrip(".")
    assert done.stdout.splitlines() == ["set() []", f"module '{name}' has no attribute 'nonsense'"]


@pytest.mark.parametrize("path", PACKAGES)
def test_every_package_is_found_from_the_door(path):
    found = penstock
    for name in path.split("."):
        assert name in dir(found)
        assert name in found.__all__
        found = getattr(found, name)
    assert found is importlib.import_module(f"penstock.{path}")


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


def test_the_running_loop_has_its_own_type_and_another_kind_of_loop_is_an_error():
    async def main():
        return penstock.get_running_loop() is asyncio.get_running_loop()

    assert penstock.run(main())
    selector = penstock.Config(loop=penstock.LoopConfig(poller="selector"))
    assert penstock.run(main(), config=selector)
    with pytest.raises(RuntimeError, match=r"the running loop is asyncio\..*EventLoop, not penstock's"):
        asyncio.run(main())
    with pytest.raises(RuntimeError, match="no running event loop"):
        penstock.get_running_loop()


def test_a_server_made_by_asyncio_is_of_penstocks_type():
    async def main():
        async with await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0) as server:
            return isinstance(server, penstock.Server)

    assert penstock.run(main())
    assert not asyncio.run(main())


PARENT = """
import sys
import penstock.cli.serve, penstock.integrations.uvicorn.supervised
print(*(name for name in sys.modules if name.startswith("penstock.")))
"""


def test_the_parent_of_workers_imports_no_loop():
    pytest.importorskip("uvicorn")
    done = subprocess.run([sys.executable, "-W", "error", "-c", PARENT], capture_output=True, text=True, check=True)
    heavy = "penstock._core", "penstock.loop", "penstock.pressure", "penstock.integrations.uvicorn.server"
    assert not set(done.stdout.split()) & set(heavy)
