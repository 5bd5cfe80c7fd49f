"""Writes the stacks of all tasks as text: the frames from each coroutine to the awaited object."""

from __future__ import annotations

import asyncio
import traceback
from typing import TYPE_CHECKING, Any, TextIO

from penstock.tasks.awaits.chain import await_chain

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

__all__ = ["dump_tasks"]


def dump_tasks(loop: asyncio.AbstractEventLoop, stream: TextIO, interrupted: FrameType | None = None) -> None:
    """Write the stack of each task of the loop, and the stack at the `interrupted` frame. Never raises."""
    try:
        stream.write("".join(_report(loop, interrupted)))
        stream.flush()
    except Exception:
        # a closed stderr, or tasks that change meanwhile: a diagnosis must not end the program
        return


def _report(loop: asyncio.AbstractEventLoop, interrupted: FrameType | None) -> Iterator[str]:
    tasks = sorted(asyncio.all_tasks(loop), key=lambda task: task.get_name())
    yield f"penstock: {len(tasks)} task{'s' * (len(tasks) != 1)} on {loop!r}\n"
    if interrupted is not None:
        yield "The loop's thread is at (most recent call last):\n"
        yield from traceback.format_list(traceback.extract_stack(interrupted))
    for task in tasks:
        yield f"{task!r}\n"
        yield from _stack(task)


def _stack(task: asyncio.Task[Any]) -> Iterator[str]:
    found = await_chain(task)
    lines = [traceback.FrameSummary(frame.file, frame.line, frame.function) for frame in found.frames]
    yield from traceback.format_list(lines)
    if found.awaited.kind != "nothing":
        yield f"  waits for {found.awaited.text}\n"
