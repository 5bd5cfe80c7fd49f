"""What tasks wait for, in words: what a deadlock names.

Reads coroutines and futures only while their loop stands still; knows nothing of loops.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["wait_of", "waits"]

AWAITED = "cr_await", "ag_await", "gi_yieldfrom"
FRAMES = "cr_frame", "ag_frame", "gi_frame"
TOLD_COUNT = 8
_ASYNCIO = os.path.dirname(asyncio.__file__) + os.sep


def waits(tasks: Iterable[asyncio.Task[Any]]) -> str:
    """What each of these tasks waits for, the first eight by name."""
    pending = sorted((task for task in tasks if not task.done()), key=_age)
    if not pending:
        return "there is no task"
    told = [wait_of(task) for task in pending[:TOLD_COUNT]]
    rest = len(pending) - len(told)
    if rest:
        told.append(f"and {rest} more")
    return f"{len(pending)} {'task waits' if len(pending) == 1 else 'tasks wait'}: {'; '.join(told)}"


def wait_of(task: asyncio.Task[Any]) -> str:
    """`Task-3 (worker) in Lock.acquire at shop.py:12`: where one task waits, and for which other task if it is one."""
    frames = list(_frames(task.get_coro()))
    name = f"{task.get_name()} ({frames[0].f_code.co_qualname})" if frames else task.get_name()
    waited = getattr(task, "_fut_waiter", None)
    parts = [name]
    if frames and frames[-1] is not frames[0]:
        parts.append(f"in {frames[-1].f_code.co_qualname}")
    if isinstance(waited, asyncio.Task):
        parts.append(f"for {waited.get_name()}")
    own = [frame for frame in frames if not frame.f_code.co_filename.startswith(_ASYNCIO)] or frames
    if own:
        parts.append(f"at {os.path.basename(own[-1].f_code.co_filename)}:{own[-1].f_lineno}")
    return " ".join(parts)


def _age(task: asyncio.Task[Any]) -> int:
    return int(getattr(task, "number", 0))


def _frames(awaited: Any) -> Iterator[Any]:
    """The frames of a coroutine and of what it awaits, from the outside in."""
    while awaited is not None:
        frame = _first(awaited, FRAMES)
        if frame is None:
            return
        yield frame
        awaited = _first(awaited, AWAITED)


def _first(owner: Any, names: tuple[str, ...]) -> Any:
    return next((found for name in names if (found := getattr(owner, name, None)) is not None), None)
