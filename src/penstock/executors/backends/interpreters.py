"""A lane over CPython's interpreters, each with a GIL of its own (3.14 and later).

Functions of `__main__`, and of extensions that allow one interpreter only, cannot run there. Such a function moves to
processes for good, before its first call has begun. An exception of the function itself is never a reason to move.
"""

from __future__ import annotations

import concurrent.futures
import importlib
import logging
import pickle
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from penstock.errors import ConfigError, UnpicklableError, WorkerStartError
from penstock.executors.backends.adapter import BackendLane, ExecutorBackend, NotRunnableHere
from penstock.executors.call import function_name
from penstock.executors.cores import usable_cores, worker_limit
from penstock.executors.processes.pickling import call_fault
from penstock.executors.remote_errors import describe_error, rebuild_error, without_frames

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor, Future

    from penstock.config import LaneConfig
    from penstock.executors.job import Job
    from penstock.executors.lane import Lane

__all__ = ["InterpreterLane", "check_version", "prepare", "run"]

logger = logging.getLogger("penstock.executors")

FIRST = (3, 14)


def check_version(name: str) -> None:
    """Raise ConfigError for a lane of interpreters where Python has none."""
    if sys.version_info < FIRST:
        here = f"{sys.version_info.major}.{sys.version_info.minor}"
        message = f"lane {name!r} = 'interpreters' needs Python 3.14 or later, this is {here}: use 'processes'"
        raise ConfigError(message, key=name, value="interpreters", allowed="processes")


class InterpreterLane(BackendLane):
    """The lane of `config.workers` interpreters, or one for each usable core and at least `min_workers`.

    `fallback` returns the lane for functions that cannot run there. `preload` and `initializer` are as for processes.
    Raises ConfigError before Python 3.14.
    """

    exits_are_errors = True
    # for the context variables of a call that moves to processes
    takes_context = True

    def __init__(self, name: str, config: LaneConfig, fallback: Callable[[], Lane]) -> None:
        check_version(name)
        super().__init__(name, config, InterpreterBackend(name, config))
        self._fallback = fallback
        self._moved: set[str] = set()

    def _offer(self, job: Job) -> None:
        fn = _plain(job.call.fn)
        name = function_name(fn)
        if name not in self._moved and name.startswith("__main__."):
            self._move(name, "it belongs to __main__")
        if name in self._moved:
            self._check_open()
            self._fallback()._offer(job)
        else:
            super()._offer(job)

    def _move(self, name: str, reason: object) -> None:
        with self._lock:
            is_known = name in self._moved
            self._moved.add(name)
        if not is_known:
            logger.warning(
                "lane %r: %s cannot run in an interpreter and runs in processes from now on: %s",
                self.name,
                name,
                reason,
            )

    def _send_elsewhere(self, job: Job, reason: NotRunnableHere) -> None:
        self._move(function_name(_plain(job.call.fn)), reason)
        if job.loop is None:
            self._hand_over(job)
            return
        try:
            job.loop.call_soon_threadsafe(self._hand_over, job)
        except RuntimeError:
            pass  # the loop is closed: there is no caller any more

    def _hand_over(self, job: Job) -> None:
        if job.done():
            return
        try:
            self._fallback()._offer(job)
        except Exception as problem:
            job.fail(without_frames(problem))


class InterpreterBackend(ExecutorBackend):
    """CPython's pool of interpreters. A call is sent as one pickle, and so is its outcome: nothing depends on the
    objects that the pool itself can share, and the place of a failure is known."""

    kind = "interpreters"

    def __init__(self, name: str, config: LaneConfig) -> None:
        super().__init__(partial(_make_pool, name, config))
        self._config = config

    def _give(self, executor: Executor, job: Job) -> Future[Any]:
        try:
            text = pickle.dumps((job.call.fn, job.call.args, job.call.kwargs or {}), 5)
        except Exception as problem:
            raise call_fault(job.call, problem) from problem
        return executor.submit(run, text)

    def read(self, value: Any) -> Any:
        """Implement Backend's method."""
        ending, text = value
        if ending == "not_here":
            raise NotRunnableHere(text.decode())
        if ending == "ok":
            return pickle.loads(text)
        raise rebuild_error(*pickle.loads(text))

    def failure(self, problem: BaseException) -> BaseException:
        """Implement Backend's method."""
        if not isinstance(problem, concurrent.futures.BrokenExecutor):
            return problem
        told = WorkerStartError("an interpreter does not start: a module to preload, or the initializer, raised there")
        told.__cause__ = problem
        return told


def _make_pool(name: str, config: LaneConfig) -> Executor:
    make: Any = concurrent.futures.InterpreterPoolExecutor  # type: ignore[attr-defined,unused-ignore]
    pool: Executor = make(
        worker_limit(config, usable_cores()),
        thread_name_prefix=f"penstock-{name}",
        initializer=prepare,
        initargs=(tuple(sys.path), config.preload, _reference(config.initializer)),
    )
    return pool


def _reference(initializer: Any) -> bytes:
    """Return the pickle of the initializer, a function or its name."""
    if isinstance(initializer, str):
        from penstock.config.references import resolve

        initializer = resolve(initializer, "initializer")
    return pickle.dumps(initializer, 5)


def _plain(fn: Any) -> Any:
    """Return the function of a partial."""
    while isinstance(fn, partial):
        fn = fn.func
    return fn


# --- in an interpreter ------------------------------------------------------------------------------------------------


def prepare(path: tuple[str, ...], preload: tuple[str, ...], initializer: bytes) -> None:
    """Prepare a new interpreter: set the program's module path, import `preload`, call the initializer."""
    sys.path[:] = path
    for module in preload:
        importlib.import_module(module)
    call = pickle.loads(initializer)
    if call is not None:
        call()


def run(text: bytes) -> tuple[str, bytes]:
    """Run a pickled call in an interpreter. Return its outcome, `ok`, `error` or `not_here`, and the pickled value.

    Loading the pickle imports the modules of the function and its arguments; `not_here` means that this has failed.
    """
    try:
        fn, args, kwargs = pickle.loads(text)
    except BaseException as problem:
        return "not_here", f"{type(problem).__name__}: {problem}".encode()
    try:
        value = fn(*args, **kwargs)
    except BaseException as problem:
        return "error", pickle.dumps(describe_error(problem), 5)
    try:
        return "ok", pickle.dumps(value, 5)
    except Exception as problem:
        message = f"the result of {function_name(fn)}, a {type(value).__qualname__}, does not pickle: {problem}"
        return "error", pickle.dumps(describe_error(UnpicklableError(message)), 5)
