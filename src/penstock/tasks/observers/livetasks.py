"""The live tasks at one moment: a sequence that copies references at once and makes each record as it is read.

A hundred thousand tasks do not block the loop, and no task is kept alive. Knows rows, not the observers that make them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, overload

from penstock.tasks.records import LiveTask

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.tasks.place import Place

__all__ = ["LiveRow", "LiveTasks"]


class LiveRow(NamedTuple):
    """A live task as its observer has recorded it. Times are nanoseconds; the start times are monotonic."""

    # one number for each task of the process, in the order of birth
    number: int
    # a weak reference to the task
    task: Callable[[], Any]
    site: Place
    # 0 if not recorded
    born_ns: int
    # when the present state began; 0 if not recorded
    since_ns: int
    # ready, running or waiting
    state: str
    # before the present state
    running_ns: int
    ready_ns: int
    steps: int

    def record(self, taken_ns: int) -> LiveTask:
        """Return the public record, with times as of `taken_ns`. A task that has been collected has no name."""
        task, in_state_ns = self.task(), max(taken_ns - self.since_ns, 0) if self.since_ns else 0
        age_ns = max(taken_ns - self.born_ns, 0) if self.born_ns else 0
        running_ns = self.running_ns + (in_state_ns if self.state == "running" else 0)
        ready_ns = self.ready_ns + (in_state_ns if self.state == "ready" else 0)
        return LiveTask(
            number=self.number,
            name="" if task is None else _name(task),
            site=self.site,
            age_s=age_ns / 1e9,
            state=self.state,
            running_s=running_ns / 1e9,
            ready_s=ready_ns / 1e9,
            waiting_s=max(age_ns - running_ns - ready_ns, 0) / 1e9,
            steps=self.steps,
        )


class LiveTasks(Sequence[LiveTask]):
    """The tasks that had not ended at `taken_ns`. `found` has the observer's own entries; `row_of` makes their rows."""

    __slots__ = ("_found", "_row_of", "_taken_ns")

    def __init__(self, found: Sequence[Any], row_of: Callable[[Any], LiveRow], taken_ns: int) -> None:
        self._found = found
        self._row_of = row_of
        self._taken_ns = taken_ns

    def __len__(self) -> int:
        return len(self._found)

    @overload
    def __getitem__(self, index: int) -> LiveTask: ...
    @overload
    def __getitem__(self, index: slice) -> list[LiveTask]: ...
    def __getitem__(self, index: int | slice) -> LiveTask | list[LiveTask]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        return self._row_of(self._found[range(len(self))[index]]).record(self._taken_ns)


def _name(task: Any) -> str:
    try:
        return str(task.get_name())
    except AttributeError:
        # made by the program's own factory, and no task of asyncio's
        return repr(task)
