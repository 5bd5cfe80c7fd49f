"""The observer of asyncio's and uvloop's loops: a task factory that keeps the records.

It sees the birth and the end of a task: steps, ready time, loop figures and stalls are zero. It uses only the public
interface of a loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import count
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar
from weakref import ref

from penstock.errors import ConfigError
from penstock.tasks.finding_log import FindingLog
from penstock.tasks.flighttrace import Event
from penstock.tasks.observers import registry
from penstock.tasks.observers.factoryrecords import TaskRecord, TracedRecord, live_row
from penstock.tasks.observers.livetasks import LiveTasks
from penstock.tasks.observers.lost import LostTasks
from penstock.tasks.observers.registry import LEVELS
from penstock.tasks.observers.sites import SiteTable, creator, raw_stack
from penstock.tasks.records import SiteStatistics, TaskStatistics
from penstock.times import merged, taken

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Sequence

    from penstock.tasks.observers.sites import SiteEntry
    from penstock.tasks.place import Place
    from penstock.tasks.records import LiveTask

    Make: TypeAlias = Callable[..., Any]

__all__ = ["TaskFactory"]

T = TypeVar("T")

TIME, TRACE = LEVELS.index("time"), LEVELS.index("trace")
STACK_FRAMES = 8
STACK_EVERY = 16
MOST_EVENTS = 16_384

# one number for each task of the process, over all factories
_numbers = count(1)
_loop_numbers = count(1)


class TaskFactory:
    """A task factory that records birth, site, end, outcome and latency of each task that the loop makes.

    Install it by `loop.set_task_factory(TaskFactory())`, one for each loop. `make(loop, coro, **kwargs)` makes the
    tasks: the program's own factory or asyncio.eager_task_factory; by default asyncio.Task. `level` is off, count
    (numbers and outcomes), time (also times and sites) or trace (also each birth and end as an event, and the creation
    stack of one task in `stack_every`). `name` is the loop's name in metrics; by default one is made from its class.

    It costs one done callback for each task. A finished task counts as live until that has run, in the loop's next
    turn. Tasks made by asyncio.Task() itself are not seen, nor a task's life between birth and end. Raises ConfigError
    for an unknown level.
    """

    def __init__(
        self,
        make: Make | None = None,
        level: str = "time",
        *,
        name: str | None = None,
        stack_every: int = STACK_EVERY,
    ) -> None:
        self.findings = FindingLog()
        self.name = name
        self._implementation = ""
        # returns the loop that made the last task
        self._loop: Callable[[], asyncio.AbstractEventLoop | None] = lambda: None
        self._make = make
        self._level = _rank(level)
        self._sites = SiteTable()
        # id(task) -> its record, which holds the task weakly
        self._live: dict[int, TaskRecord] = {}
        self._eager_count = 0
        # bound once: to bind a method costs about as much as to call it
        self._on_end = self._ended
        self._lost = LostTasks(self.findings, self._live)
        self._on_lost = self._lost.collected
        self._stack_every = max(1, stack_every)
        self._events: deque[tuple[int, str, int, SiteEntry]] = deque(maxlen=MOST_EVENTS)
        self._event_count = 0

    # --- making tasks

    def __call__(
        self, loop: asyncio.AbstractEventLoop, coro: Generator[Any, None, T] | Coroutine[Any, Any, T], **kwargs: Any
    ) -> asyncio.Future[T]:
        """Make and record a task. `loop.create_task` calls this."""
        # uvloop passes `eager_start` even if its caller has not, and other factories do not know that argument
        if "eager_start" in kwargs and kwargs["eager_start"] is None:
            del kwargs["eager_start"]
        born_ns, make = monotonic_ns(), self._make
        task: asyncio.Task[T] = asyncio.Task(coro, loop=loop, **kwargs) if make is None else make(loop, coro, **kwargs)
        if self._level:
            self._born(loop, task, born_ns, 2)
        return task

    def hook(self, loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], make: Make, **kwargs: Any) -> Any:
        """Make and record a task, and return it: a hook for `set_task_hook`, beside the program's task factory."""
        born_ns = monotonic_ns()
        task = make(loop, coro, **kwargs)
        if self._level:
            # the caller is the loop's wrapper around its factory
            self._born(loop, task, born_ns, 3)
        return task

    def _born(self, loop: asyncio.AbstractEventLoop, task: Any, born_ns: int, depth: int) -> None:
        if self._loop() is not loop:
            self._meet(loop)
        level, sites = self._level, self._sites
        entry = sites.unknown if level < TIME else sites.entry(creator(depth))
        try:
            record = (TaskRecord if level < TRACE else TracedRecord)(task, self._on_lost)
        except TypeError:
            # the program's own factory made an object without weak references: its end could not be seen
            return
        entry.created += 1
        record.entry = entry
        record.born_ns = born_ns if level >= TIME else 0
        record.key = key = id(task)
        record.number = next(_numbers)
        self._live[key] = record
        if level == TRACE:
            self._trace_birth(record, born_ns, depth + 1)
        if task.done():
            self._eager_count += 1
            self._ended(task)
        else:
            task.add_done_callback(self._on_end)

    def _ended(self, task: Any) -> None:
        record = self._live.pop(id(task), None)
        if record is None:
            return
        entry = record.entry
        # not exception(): that would count as retrieving it, and asyncio would no longer report the failure
        if task.cancelled():
            entry.cancelled += 1
        elif _failure(task) is None:
            entry.returned += 1
        else:
            entry.failed += 1
        if record.born_ns:
            entry.latency.add(monotonic_ns() - record.born_ns)
        if self._level == TRACE:
            self._note("end", monotonic_ns(), record)

    def _trace_birth(self, record: TaskRecord, born_ns: int, depth: int) -> None:
        self._note("birth", born_ns, record)
        if record.number % self._stack_every == 0 and isinstance(record, TracedRecord):
            record.stack = raw_stack(creator(depth), STACK_FRAMES)

    def _note(self, kind: str, at_ns: int, record: TaskRecord) -> None:
        self._event_count += 1
        self._events.append((at_ns, kind, record.number, record.entry))

    def _meet(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = self._lost.loop = ref(loop)
        self._implementation = type(loop).__module__.partition(".")[0]
        if self.name is None:
            self.name = f"{self._implementation}-{next(_loop_numbers)}"
        self._lost.name = self.name
        # the observer of penstock's native loop sees more
        if registry.observer_of(loop) is None:
            registry.register(loop, self)

    # --- the Observer protocol

    def set_level(self, level: str) -> None:
        """Set the level of tasks made from now on: off, count, time or trace. Raises ConfigError for any other."""
        self._level = _rank(level)

    def statistics(self) -> TaskStatistics:
        """Return the counts and latencies so far; the figures that only a loop can measure are zero."""
        self._lost.report()
        entries = self._sites.entries()
        completed, failed = sum(entry.returned for entry in entries), sum(entry.failed for entry in entries)
        cancelled, lost = sum(entry.cancelled for entry in entries), sum(entry.lost for entry in entries)
        # last: a task that has ended since its site was read counts as live, and the sum holds
        created = sum(entry.created for entry in entries)
        return TaskStatistics(
            loop=self.name or "",
            implementation=self._implementation,
            level=LEVELS[self._level],
            created=created,
            completed=completed,
            failed=failed,
            cancelled=cancelled,
            lost=lost,
            live=created - completed - failed - cancelled - lost,
            eager=self._eager_count,
            latency=merged(taken(entry.latency) for entry in entries),
            findings=self.findings.counts(),
            dropped=self._event_count - len(self._events),
        )

    def live(self) -> Sequence[LiveTask]:
        """Return the tasks that have not ended, oldest first; each record is made as it is read."""
        loop = self._loop()
        return LiveTasks(list(self._live.values()), lambda record: live_row(record, loop), monotonic_ns())

    def numbered(self, number: int) -> tuple[LiveTask, Any] | None:
        """Return the record of the live task with this number, and the task; None without one."""
        found = next((record for record in list(self._live.values()) if record.number == number), None)
        task = None if found is None else found()
        if found is None or task is None:
            return None
        return live_row(found, self._loop()).record(monotonic_ns()), task

    def sites(self) -> list[SiteStatistics]:
        """Return the statistics of each site; tasks made at level count have the site "unknown"."""
        self._lost.report()
        return [_site_statistics(entry) for entry in self._sites.entries()]

    def number_of(self, task: Any) -> int:
        """Return the number of a live task; 0 if it was not recorded."""
        record = self._live.get(id(task))
        return 0 if record is None else record.number

    def site_of_task(self, task: Any) -> Place | None:
        """Return the site of a live task; None if it was not recorded."""
        record = self._live.get(id(task))
        return None if record is None else record.entry.site

    def creation_stack(self, task: Any) -> list[Place]:
        """Return the creation stack of a live task, innermost first, at most 8 frames; empty if it is not a sample."""
        record = self._live.get(id(task))
        return record.creation_stack() if isinstance(record, TracedRecord) else []

    def events(self) -> list[Event]:
        """Return the newest 16,384 births and ends at level trace, oldest first."""
        return [Event(at_ns, 0, kind, number, str(entry.site)) for at_ns, kind, number, entry in self._events.copy()]


def _rank(level: str) -> int:
    if level not in LEVELS:
        raise ConfigError.bad_value("tasks.level", level, "TaskFactory", f"one of {', '.join(LEVELS)}")
    return LEVELS.index(level)


def _failure(task: Any) -> BaseException | None:
    try:
        return task._exception  # type: ignore[no-any-return]
    except AttributeError:
        # not a future of asyncio's: it has only the public method
        return task.exception()  # type: ignore[no-any-return]


def _site_statistics(entry: SiteEntry) -> SiteStatistics:
    completed, failed, cancelled, lost = entry.returned, entry.failed, entry.cancelled, entry.lost
    created = entry.created
    live = created - completed - failed - cancelled - lost
    return SiteStatistics(entry.site, created, completed, failed, cancelled, live, 0.0, 0.0, taken(entry.latency))
