"""`spawn()`: tasks that are kept until they end and whose failures are reported at once. Works on any loop.

asyncio holds tasks weakly, so a task without another reference may be collected before it ends. It reports a failure
only when the task is collected. Knows observers by their protocol alone.
"""

from __future__ import annotations

import asyncio
from functools import partial
from time import monotonic, time
from traceback import format_exception
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from penstock.tasks.finding import Finding
from penstock.tasks.observers.registry import observer_of
from penstock.tasks.observers.sites import creator, place_at

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from contextvars import Context

    from penstock.tasks.observers.sites import Instruction
    from penstock.tasks.place import Place

__all__ = ["limit_spawns", "spawn", "spawn_when_free"]

T = TypeVar("T")

# Turns from the end of a task until an awaiter has its exception: one for `await` and gather(), two for wait(), three
# for as_completed().
RETRIEVAL_TURNS = 3
# the end of a traceback that is kept as evidence
TRACEBACK_CHARACTERS = 8000

_kept: dict[asyncio.AbstractEventLoop, set[asyncio.Task[Any]]] = {}
# loop -> the function that waits until one more task may live in it
_limits: WeakKeyDictionary[asyncio.AbstractEventLoop, Callable[[], Awaitable[None]]] = WeakKeyDictionary()


def spawn(
    coro: Coroutine[Any, Any, T],
    *,
    name: str | None = None,
    context: Context | None = None,
    loop: asyncio.AbstractEventLoop | None = None,
) -> asyncio.Task[T]:
    """Make a task, keep a reference to it until it has ended, and report its failure.

    An exception that ends the task is a finding of kind `failed` at once, if the loop has an observer. If no code
    awaits the task, the exception also goes to the loop's exception handler, three turns later; asyncio does not report
    it again. A cancelled task has not failed.

    `name` and `context` are those of `loop.create_task`. `loop` is the running loop by default; another one must belong
    to this thread. Returns the task. Raises RuntimeError without a running loop, as asyncio does.
    """
    if loop is None:
        loop = asyncio.get_running_loop()
    given = {key: value for key, value in (("name", name), ("context", context)) if value is not None}
    task: asyncio.Task[T] = loop.create_task(coro, **given)  # type: ignore[arg-type]
    kept = _kept.get(loop)
    if kept is None:
        _forget_closed()
        kept = _kept.setdefault(loop, set())
    kept.add(task)
    frame = creator(1)
    task.add_done_callback(partial(_ended, loop, (frame.f_code, frame.f_lasti), monotonic()))
    return task


async def spawn_when_free(
    coro: Coroutine[Any, Any, T], *, name: str | None = None, context: Context | None = None
) -> asyncio.Task[T]:
    """Make a task as `spawn` does, once fewer than `pressure.max_tasks` tasks live in the running loop.

    It waits only with `pressure.tasks_full = "wait"`, first come, first served. If it is cancelled while it waits, it
    closes the coroutine and makes no task; so it does when 10,000 callers wait already, and raises `Overloaded` (reason
    `tasks`). Returns the task.
    """
    wait = _limits.get(asyncio.get_running_loop())
    if wait is not None:
        try:
            await wait()
        except BaseException:
            coro.close()
            raise
    return spawn(coro, name=name, context=context)


def limit_spawns(loop: asyncio.AbstractEventLoop, wait: Callable[[], Awaitable[None]]) -> None:
    """Have `spawn_when_free` in this loop await `wait()` before it makes a task."""
    _limits[loop] = wait


def _forget_closed() -> None:
    """Release the tasks of closed loops, which never end."""
    for loop in list(_kept):
        if loop.is_closed():
            _kept.pop(loop, None)


def _ended(loop: asyncio.AbstractEventLoop, raw: Instruction, born_s: float, task: asyncio.Task[Any]) -> None:
    kept = _kept.get(loop)
    if kept is not None:
        kept.discard(task)
        if not kept:
            del _kept[loop]
    # not exception(): that would count as retrieving it
    problem = None if task.cancelled() else task._exception
    # asyncio raises these two from the loop itself
    if problem is not None and not isinstance(problem, (KeyboardInterrupt, SystemExit)):
        site = place_at(*raw)
        observer = observer_of(loop)
        if observer is not None:
            observer.findings.add(_failed(observer.name or "", site, task.get_name(), born_s, problem))
        _report_unawaited(loop, site, task, RETRIEVAL_TURNS)


def _failed(loop: str, site: Place, task: str, born_s: float, problem: BaseException) -> Finding:
    summary, age_s = f"{type(problem).__name__}: {problem}", monotonic() - born_s
    return Finding(
        kind="failed",
        message=f"task {task} failed: {summary} (spawned at {site})",
        site=site,
        task=task,
        since_s=born_s,
        wall_time_s=time() - age_s,
        loop=loop,
        evidence={
            "exception": summary,
            "exception_type": type(problem).__qualname__,
            # text, not the exception: its frames would keep their locals alive
            "traceback": "".join(format_exception(problem))[-TRACEBACK_CHARACTERS:],
            "age_s": age_s,
        },
    )


def _report_unawaited(loop: asyncio.AbstractEventLoop, site: Place, task: asyncio.Task[Any], turns: int) -> None:
    """Report the failure to the loop's exception handler, unless it is retrieved within so many turns."""
    if not task._log_traceback:
        return
    if turns:
        loop.call_soon(_report_unawaited, loop, site, task, turns - 1)
        return
    task._log_traceback = False
    loop.call_exception_handler(
        {
            "message": f"task {task.get_name()} failed and no code awaited it (spawned at {site})",
            "exception": task._exception,
            "task": task,
        }
    )
