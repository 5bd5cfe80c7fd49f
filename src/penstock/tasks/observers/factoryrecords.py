"""A task as the task factory notes it, and the live ones at a moment: taken at once, written out as they are read."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, overload
from weakref import ref

from penstock.tasks.observers.sites import site_of
from penstock.tasks.records import LiveTask

if TYPE_CHECKING:
    from penstock.tasks.finding import Site
    from penstock.tasks.observers.sites import RawSite, SiteEntry

__all__ = ["LiveTasks", "TaskRecord", "TracedRecord"]


class TaskRecord(ref[Any]):
    """What is known of a task, around a weak reference to it. `born_ns` is 0 where nobody looked at the clock."""

    __slots__ = ("born_ns", "entry", "key", "number")

    born_ns: int
    entry: SiteEntry
    # id(task)
    key: int
    number: int


class TracedRecord(TaskRecord):
    """One of trace's: it may have the frames that created the task, innermost first."""

    __slots__ = ("stack",)

    stack: tuple[RawSite, ...]

    def creation_stack(self) -> list[Site]:
        """The frames by name; empty where they were not noted."""
        return [site_of(*frame) for frame in getattr(self, "stack", ())]


class LiveTasks(Sequence[LiveTask]):
    """The tasks that had not ended when this was made: references are copied at once, records made as they are read.

    A task that is gone by then has no name any more. Ages are as of the making.
    """

    __slots__ = ("_loop", "_records", "taken_ns")

    def __init__(self, loop: asyncio.AbstractEventLoop | None, records: list[TaskRecord]) -> None:
        self._loop = loop
        self._records = records
        self.taken_ns = monotonic_ns()

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, index: int) -> LiveTask: ...
    @overload
    def __getitem__(self, index: slice) -> list[LiveTask]: ...
    def __getitem__(self, index: int | slice) -> LiveTask | list[LiveTask]:
        if isinstance(index, slice):
            return [self._written(record) for record in self._records[index]]
        return self._written(self._records[index])

    def _written(self, record: TaskRecord) -> LiveTask:
        task = record()
        age_s = (self.taken_ns - record.born_ns) / 1e9 if record.born_ns else 0.0
        name = "" if task is None else _name(task)
        return LiveTask(
            record.number, name, record.entry.site, max(age_s, 0.0), self._state(task), 0.0, 0.0, max(age_s, 0.0), 0
        )

    def _state(self, task: Any) -> str:
        """As far as one can tell from outside: whether it waits for something, and whether it is the current task."""
        if task is None or getattr(task, "_fut_waiter", None) is not None:
            return "waiting"
        return "running" if self._loop is not None and asyncio.current_task(self._loop) is task else "ready"


def _name(task: Any) -> str:
    try:
        return str(task.get_name())
    except AttributeError:
        return repr(task)
