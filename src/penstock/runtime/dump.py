"""Writes every task's stack as text: all frames from the task's coroutine down to what it waits for."""

from __future__ import annotations

import asyncio
import traceback
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

__all__ = ["dump_tasks"]

# what a suspended coroutine, generator or async generator calls its frame and the thing it awaits
FRAME_NAMES = ("cr_frame", "gi_frame", "ag_frame")
AWAITED_NAMES = ("cr_await", "gi_yieldfrom", "ag_await")


def dump_tasks(loop: asyncio.AbstractEventLoop, stream: TextIO, interrupted: FrameType | None = None) -> None:
    """Write the stack of each of the loop's tasks, and where its thread was `interrupted`. Never raises."""
    try:
        stream.write("".join(_report(loop, interrupted)))
        stream.flush()
    except Exception:
        # a closed stderr, a task set that changes under us: a diagnosis must not end the program
        return


def _report(loop: asyncio.AbstractEventLoop, interrupted: FrameType | None) -> Iterator[str]:
    tasks = sorted(asyncio.all_tasks(loop), key=lambda task: task.get_name())
    yield f"penstock: {len(tasks)} tasks on {loop!r}\n"
    if interrupted is not None:
        yield "The loop's thread is at (most recent call last):\n"
        yield from traceback.format_list(traceback.extract_stack(interrupted))
    for task in tasks:
        yield f"{task!r}\n"
        yield from _stack(task)


def _stack(task: asyncio.Task[Any]) -> Iterator[str]:
    awaited: Any = task.get_coro()
    while awaited is not None:
        frame = _first(awaited, FRAME_NAMES)
        if frame is not None:
            yield from traceback.format_list(traceback.StackSummary.extract([(frame, frame.f_lineno)]))
        awaited = _first(awaited, AWAITED_NAMES)


def _first(awaited: Any, names: tuple[str, ...]) -> Any:
    return next((getattr(awaited, name) for name in names if hasattr(awaited, name)), None)
