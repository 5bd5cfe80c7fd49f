"""The task factory's record of a task: a weak reference with the time and the site of its birth."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from weakref import ref

from penstock.tasks.observers.livetasks import LiveRow
from penstock.tasks.observers.sites import place_at

if TYPE_CHECKING:
    from penstock.tasks.observers.sites import Instruction, SiteEntry
    from penstock.tasks.place import Place

__all__ = ["TaskRecord", "TracedRecord", "live_row"]


class TaskRecord(ref[Any]):
    """The record of a task, around a weak reference to it. `born_ns` is 0 if the time was not recorded."""

    __slots__ = ("born_ns", "entry", "key", "number")

    born_ns: int
    entry: SiteEntry
    # id(task)
    key: int
    number: int


class TracedRecord(TaskRecord):
    """A record at level trace: it may have the creation stack, innermost frame first."""

    __slots__ = ("stack",)

    stack: tuple[Instruction, ...]

    def creation_stack(self) -> list[Place]:
        """Return the places of the creation stack; empty if it was not recorded."""
        return [place_at(*frame) for frame in getattr(self, "stack", ())]


def live_row(record: TaskRecord, loop: asyncio.AbstractEventLoop | None) -> LiveRow:
    """Return the row of a record. Steps and the time in a state cannot be seen from outside the loop."""
    state = _state(record(), loop)
    return LiveRow(record.number, record, record.entry.site, record.born_ns, 0, state, 0, 0, 0)


def _state(task: Any, loop: asyncio.AbstractEventLoop | None) -> str:
    """Return the state as far as it is visible: waiting for a future, the current task, or ready."""
    if task is None or getattr(task, "_fut_waiter", None) is not None:
        return "waiting"
    return "running" if loop is not None and asyncio.current_task(loop) is task else "ready"
