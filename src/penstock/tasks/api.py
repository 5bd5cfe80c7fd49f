"""The functions that read task telemetry: of the loop given, else of the running loop, else of all loops.

Any thread may call them. Outside of a running loop they cover all observed loops of the process: penstock's, and loops
with a `TaskFactory`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from dataclasses import fields, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from penstock.tasks.flighttrace import write
from penstock.tasks.observers.registry import LEVELS, Observer, listen, observer_of, observers, unlisten
from penstock.tasks.records import LoopFigures, SiteStatistics, TaskStatistics
from penstock.times import Times, merged

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from penstock.tasks.awaits.graph import AwaitGraph
    from penstock.tasks.finding import Finding
    from penstock.tasks.place import Place
    from penstock.tasks.records import LiveTask

__all__ = [
    "await_graph",
    "dump_trace",
    "findings",
    "live",
    "off_finding",
    "on_finding",
    "set_level",
    "sites",
    "statistics",
    "trace_on_signal",
]

logger = logging.getLogger("penstock.tasks")


def statistics(loop: asyncio.AbstractEventLoop | None = None) -> TaskStatistics:
    """Return the counts and times of the tasks so far, and the loop's own figures. Several loops are summed."""
    found = [observer.statistics() for observer in _observers_for(loop)]
    if len(found) == 1:
        return found[0]
    names, levels = ", ".join(one.loop for one in found), {one.level for one in found}
    total = TaskStatistics(names, "several" if found else "none", levels.pop() if len(levels) == 1 else "mixed")
    return replace(
        total,
        **_summed(found, ("loop", "implementation", "level", "figures")),
        figures=LoopFigures(**_summed([one.figures for one in found])),
    )


def _summed(records: Sequence[Any], leave_out: tuple[str, ...] = ()) -> dict[str, Any]:
    if not records:
        return {}
    names = [item.name for item in fields(records[0]) if item.name not in leave_out]
    return {name: _sum([getattr(record, name) for record in records]) for name in names}


def _sum(values: list[Any]) -> Any:
    if isinstance(values[0], Times):
        return merged(values)
    if isinstance(values[0], (int, float)):
        return sum(values)
    keys = dict.fromkeys(chain.from_iterable(values))
    return {key: sum(value.get(key, 0) for value in values) for key in keys}


def live(loop: asyncio.AbstractEventLoop | None = None) -> Sequence[LiveTask]:
    """Return a record of each task that has not ended. References are copied now, records are made as they are read."""
    found = [observer.live() for observer in _observers_for(loop)]
    return found[0] if len(found) == 1 else list(chain.from_iterable(found))


def sites(loop: asyncio.AbstractEventLoop | None = None) -> list[SiteStatistics]:
    """Return the statistics of each site, by live tasks, largest first."""
    by_site: dict[Place, list[SiteStatistics]] = {}
    for observer in _observers_for(loop):
        for one in observer.sites():
            by_site.setdefault(one.site, []).append(one)
    found = [SiteStatistics(site, **_summed(same, ("site",))) for site, same in by_site.items()]
    return sorted(found, key=lambda one: (-one.live, -one.created))


def findings(loop: asyncio.AbstractEventLoop | None = None) -> list[Finding]:
    """Return the newest findings, 256 for each loop, oldest first."""
    found = chain.from_iterable(observer.findings.all() for observer in _observers_for(loop))
    return sorted(found, key=lambda finding: finding.wall_time_s)


def on_finding(fn: Callable[[Finding], object], loop: asyncio.AbstractEventLoop | None = None) -> None:
    """Call `fn(finding)` for each finding from now on, in the thread that finds it.

    Outside of a running loop and without `loop` it holds for every loop, also for loops made later. Raises RuntimeError
    for a loop that is not observed.
    """
    if loop is None and asyncio._get_running_loop() is None:
        listen(fn)
        return
    for observer in _required_observers(loop):
        observer.findings.listen(fn)


def off_finding(fn: Callable[[Finding], object], loop: asyncio.AbstractEventLoop | None = None) -> None:
    """Stop calling `fn`; the reverse of `on_finding`."""
    if loop is None and asyncio._get_running_loop() is None:
        unlisten(fn)
        return
    for observer in _observers_for(loop):
        observer.findings.unlisten(fn)


def await_graph(loop: asyncio.AbstractEventLoop | None = None) -> AwaitGraph:
    """Return the await graph: tasks with the same stack in one group, and the waits between tasks. On any asyncio loop.

    Raises RuntimeError without `loop` and a running loop.
    """
    from penstock.tasks.awaits.graph import await_graph as graph_of

    return graph_of(asyncio.all_tasks(asyncio.get_running_loop() if loop is None else loop))


def set_level(level: str, loop: asyncio.AbstractEventLoop | None = None) -> None:
    """Set the level from now on: off, count, time or trace.

    Raises ValueError for any other, and RuntimeError for a loop that is not observed.
    """
    if level not in LEVELS:
        raise ValueError(f"no level {level!r}: it is off, count, time or trace")
    for observer in _required_observers(loop):
        observer.set_level(level)


def dump_trace(path: str | os.PathLike[str], loop: asyncio.AbstractEventLoop | None = None) -> int:
    """Write the flight recorder's events as a trace for ui.perfetto.dev. Return their number. Raises OSError."""
    found = _observers_for(loop)
    kept = chain.from_iterable(observer.findings.all() for observer in found)
    return write(path, [(observer.name or "", observer.events()) for observer in found], kept)


def trace_on_signal(loop: asyncio.AbstractEventLoop, signum: int) -> None:
    """Write a trace into the current folder and log its name: a handler for the config's `signals.handlers`.

    `signum`, the number of the signal, is not used.
    """
    path = f"penstock-{os.getpid()}-{time.strftime('%Y%m%d-%H%M%S')}.json"
    try:
        logger.info("%d events written to %s", dump_trace(path, loop), path)
    except OSError as error:
        logger.warning("no trace was written: %s", error)


def _required_observers(loop: asyncio.AbstractEventLoop | None) -> list[Observer]:
    """Return the observers; raise RuntimeError if there is none."""
    found = _observers_for(loop)
    if not found:
        loop = loop or asyncio._get_running_loop()
        if loop is None:
            raise RuntimeError("no loop of this process is observed yet: call it in a running loop")
        raise RuntimeError(
            f"the tasks of {loop!r} are not observed: its tasks.level is off, or it is not penstock's and has no "
            "penstock.tasks.TaskFactory()"
        )
    return found


def _observers_for(loop: asyncio.AbstractEventLoop | None) -> list[Observer]:
    if loop is None:
        loop = asyncio._get_running_loop()
        if loop is None:
            return observers()
    observer = observer_of(loop) or _task_factory(loop)
    return [] if observer is None else [observer]


def _task_factory(loop: asyncio.AbstractEventLoop) -> Observer | None:
    """Return the loop's `TaskFactory`, None if it has none. It registers itself with the first task that it makes."""
    from penstock.tasks.observers.factory import TaskFactory

    factory: object = loop.get_task_factory()
    return factory if isinstance(factory, TaskFactory) else None
