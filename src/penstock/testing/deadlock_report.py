"""Describes in words where tasks wait, for the message of a deadlock.

It reads coroutines and futures, only while their loop does not run, and it does not depend on loops.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["describe_task", "describe_tasks"]

AWAITED = "cr_await", "ag_await", "gi_yieldfrom"
FRAMES = "cr_frame", "ag_frame", "gi_frame"
MAX_TASKS = 8
_ASYNCIO = os.path.dirname(asyncio.__file__) + os.sep


def describe_tasks(tasks: Iterable[asyncio.Task[Any]]) -> str:
    """Return one line about the pending tasks: the first eight with where each waits, and how many more."""
    pending = sorted((task for task in tasks if not task.done()), key=_age)
    if not pending:
        return "there is no task"
    described = [describe_task(task) for task in pending[:MAX_TASKS]]
    rest = len(pending) - len(described)
    if rest:
        described.append(f"and {rest} more")
    return f"{len(pending)} {'task waits' if len(pending) == 1 else 'tasks wait'}: {'; '.join(described)}"


def describe_task(task: asyncio.Task[Any]) -> str:
    """Return where the task waits, and for which task if any: `Task-3 (worker) in Lock.acquire at shop.py:12`."""
    frames = list(_frames(task.get_coro()))
    name = f"{task.get_name()} ({frames[0].f_code.co_qualname})" if frames else task.get_name()
    waiter = getattr(task, "_fut_waiter", None)
    parts = [name]
    if frames and frames[-1] is not frames[0]:
        parts.append(f"in {frames[-1].f_code.co_qualname}")
    if isinstance(waiter, asyncio.Task):
        parts.append(f"for {waiter.get_name()}")
    own = [frame for frame in frames if not frame.f_code.co_filename.startswith(_ASYNCIO)] or frames
    if own:
        parts.append(f"at {os.path.basename(own[-1].f_code.co_filename)}:{own[-1].f_lineno}")
    return " ".join(parts)


def _age(task: asyncio.Task[Any]) -> int:
    return int(getattr(task, "number", 0))


def _frames(awaited: Any) -> Iterator[Any]:
    """Yield the frames of a coroutine and of its awaitables, outermost first."""
    while awaited is not None:
        frame = _first(awaited, FRAMES)
        if frame is None:
            return
        yield frame
        awaited = _first(awaited, AWAITED)


def _first(owner: Any, names: tuple[str, ...]) -> Any:
    return next((found for name in names if (found := getattr(owner, name, None)) is not None), None)
