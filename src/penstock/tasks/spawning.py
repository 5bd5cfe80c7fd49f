"""`spawn()`: a task that nobody has to keep, and whose failure somebody owns. Works on any loop.

asyncio keeps a task weakly, so one that its maker forgets may vanish half-way; and it tells of a failure only when the
task is collected. Knows observers by their protocol alone.
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
from penstock.tasks.observers.sites import creator, site_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from contextvars import Context

    from penstock.tasks.finding import Site
    from penstock.tasks.observers.sites import RawSite

__all__ = ["set_room", "spawn", "spawn_when_free"]

T = TypeVar("T")

# Turns from the end of a task until whoever awaits it has its exception: `await` and gather() take one, wait() two,
# as_completed() three.
PATIENCE_TURNS = 3
# of a traceback, the end of which tells most
EVIDENCE_CHARACTERS = 8000

_kept: dict[asyncio.AbstractEventLoop, set[asyncio.Task[Any]]] = {}
# room(): waits until one more task may live in the loop
_rooms: WeakKeyDictionary[asyncio.AbstractEventLoop, Callable[[], Awaitable[None]]] = WeakKeyDictionary()


def spawn(
    coro: Coroutine[Any, Any, T],
    *,
    name: str | None = None,
    context: Context | None = None,
    loop: asyncio.AbstractEventLoop | None = None,
) -> asyncio.Task[T]:
    """A task that is kept until it has ended, whether or not anyone else keeps it, and fails loudly.

    An exception that ends it is a finding of kind `failed` at once, where the loop has an observer. Unless somebody
    awaits the task by then, it goes to the loop's exception handler as well, a few turns later; asyncio then does not
    report it again. A cancelled task is no failure. `loop` is the running one; another must be this thread's. Raises
    RuntimeError without a running loop, as asyncio does.
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
    task.add_done_callback(partial(_ended, loop, (frame.f_code, frame.f_lasti)))
    return task


async def spawn_when_free(
    coro: Coroutine[Any, Any, T], *, name: str | None = None, context: Context | None = None
) -> asyncio.Task[T]:
    """As `spawn`, once the running loop has room: with `pressure.tasks_full = "wait"`, while fewer than
    `pressure.max_tasks` tasks live in it; else at once.

    First come, first served. Cancelled while it waits, it closes the coroutine: no task is made.
    """
    room = _rooms.get(asyncio.get_running_loop())
    if room is not None:
        try:
            await room()
        except BaseException:
            coro.close()
            raise
    return spawn(coro, name=name, context=context)


def set_room(loop: asyncio.AbstractEventLoop, room: Callable[[], Awaitable[None]]) -> None:
    """Have `spawn_when_free` in this loop wait for `room()`."""
    _rooms[loop] = room


def _forget_closed() -> None:
    """What a closed loop has left will never end."""
    for loop in list(_kept):
        if loop.is_closed():
            _kept.pop(loop, None)


def _ended(loop: asyncio.AbstractEventLoop, raw: RawSite, task: asyncio.Task[Any]) -> None:
    kept = _kept.get(loop)
    if kept is not None:
        kept.discard(task)
        if not kept:
            del _kept[loop]
    # not exception(): that would count as having retrieved it
    problem = None if task.cancelled() else task._exception
    # those two have left through the loop itself
    if problem is not None and not isinstance(problem, (KeyboardInterrupt, SystemExit)):
        site = site_of(*raw)
        _find(loop, site, task, problem)
        _look_later(loop, site, task, PATIENCE_TURNS)


def _find(loop: asyncio.AbstractEventLoop, site: Site, task: asyncio.Task[Any], problem: BaseException) -> None:
    observer = observer_of(loop)
    if observer is None:
        return
    summary = f"{type(problem).__name__}: {problem}"
    observer.findings.add(
        Finding(
            kind="failed",
            message=f"task {task.get_name()} failed: {summary} (spawned at {site})",
            site=site,
            task=task.get_name(),
            since_s=monotonic(),
            wall_time_s=time(),
            evidence={
                "exception": summary,
                # text, not the exception: its frames would keep alive whatever they hold
                "traceback": "".join(format_exception(problem))[-EVIDENCE_CHARACTERS:],
            },
        )
    )


def _look_later(loop: asyncio.AbstractEventLoop, site: Site, task: asyncio.Task[Any], turns: int) -> None:
    if not task._log_traceback:
        # somebody has the exception
        return
    if turns:
        loop.call_soon(_look_later, loop, site, task, turns - 1)
        return
    task._log_traceback = False
    loop.call_exception_handler(
        {
            "message": f"task {task.get_name()} failed and nobody awaited it (spawned at {site})",
            "exception": task._exception,
            "task": task,
        }
    )
