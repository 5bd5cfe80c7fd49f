"""Reading task telemetry from code: each function speaks of the running loop, of one named, or of all there are.

Any thread may call them. Without an argument, in a running loop they mean that loop, elsewhere all watched loops of the
process, penstock's and those with a `TaskFactory`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from dataclasses import fields, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from penstock.tasks.finding import LEVELS
from penstock.tasks.flighttrace import write
from penstock.tasks.observers.registry import Observer, listen, observer_of, observers, unlisten
from penstock.tasks.records import LoopFigures, SiteStatistics, TaskStatistics
from penstock.times import Times, merged

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from penstock.tasks.awaits.graph import AwaitGraph
    from penstock.tasks.finding import Finding, Site
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
    """The tasks so far: how many, with which outcome, how long; the loop's own figures. Several loops are summed."""
    found = [observer.statistics() for observer in _meant(loop)]
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
    """A record of each task that has not ended: taken at once, written out as it is read."""
    found = [observer.live() for observer in _meant(loop)]
    return found[0] if len(found) == 1 else list(chain.from_iterable(found))


def sites(loop: asyncio.AbstractEventLoop | None = None) -> list[SiteStatistics]:
    """The tasks by where they were created, those with the most live ones first."""
    by_site: dict[Site, list[SiteStatistics]] = {}
    for observer in _meant(loop):
        for one in observer.sites():
            by_site.setdefault(one.site, []).append(one)
    found = [SiteStatistics(site, **_summed(same, ("site",))) for site, same in by_site.items()]
    return sorted(found, key=lambda one: (-one.live, -one.created))


def findings(loop: asyncio.AbstractEventLoop | None = None) -> list[Finding]:
    """What was found wrong, oldest first: the newest few hundred."""
    found = chain.from_iterable(observer.findings.all() for observer in _meant(loop))
    return sorted(found, key=lambda finding: finding.wall_time_s)


def on_finding(fn: Callable[[Finding], object], loop: asyncio.AbstractEventLoop | None = None) -> None:
    """Call `fn(finding)` at each finding from now on, in whatever thread finds it.

    Outside a running loop and without `loop` it holds for every loop, those made later too. Raises RuntimeError for a
    loop that is not watched.
    """
    if loop is None and asyncio._get_running_loop() is None:
        listen(fn)
        return
    for observer in _watched(loop):
        observer.findings.listen(fn)


def off_finding(fn: Callable[[Finding], object], loop: asyncio.AbstractEventLoop | None = None) -> None:
    """Undo `on_finding`."""
    if loop is None and asyncio._get_running_loop() is None:
        unlisten(fn)
        return
    for observer in _meant(loop):
        observer.findings.unlisten(fn)


def await_graph(loop: asyncio.AbstractEventLoop | None = None) -> AwaitGraph:
    """Who awaits whom, tasks with the same stack in one group. On any asyncio loop. RuntimeError where none runs."""
    from penstock.tasks.awaits.graph import await_graph as graph_of

    return graph_of(asyncio.all_tasks(asyncio.get_running_loop() if loop is None else loop))


def set_level(level: str, loop: asyncio.AbstractEventLoop | None = None) -> None:
    """off, count, time or trace, from now on. ValueError for any other, RuntimeError for a loop that is not watched."""
    if level not in LEVELS:
        raise ValueError(f"no level {level!r}: it is off, count, time or trace")
    for observer in _watched(loop):
        observer.set_level(level)


def dump_trace(path: str | os.PathLike[str], loop: asyncio.AbstractEventLoop | None = None) -> int:
    """Write what the flight recorder holds, for ui.perfetto.dev; gives the number of events. Raises OSError."""
    return write(path, [(observer.statistics().loop, observer.events()) for observer in _meant(loop)])


def trace_on_signal(loop: asyncio.AbstractEventLoop, signum: int) -> None:
    """For the config's `signals.handlers`: write a trace into the folder the program runs in, and log its name."""
    path = f"penstock-{os.getpid()}-{time.strftime('%Y%m%d-%H%M%S')}.json"
    try:
        logger.info("%d events written to %s", dump_trace(path, loop), path)
    except OSError as error:
        logger.warning("no trace was written: %s", error)


def _watched(loop: asyncio.AbstractEventLoop | None) -> list[Observer]:
    """Return whom `_meant` returns; RuntimeError where that is nobody."""
    found = _meant(loop)
    if not found:
        loop = loop or asyncio._get_running_loop()
        if loop is None:
            raise RuntimeError("no loop is there yet whose tasks are watched: call it in a running loop")
        raise RuntimeError(
            f"the tasks of {loop!r} are not watched: its tasks.level is off, or it is not penstock's and has no "
            "penstock.tasks.TaskFactory()"
        )
    return found


def _meant(loop: asyncio.AbstractEventLoop | None) -> list[Observer]:
    if loop is None:
        loop = asyncio._get_running_loop()
        if loop is None:
            return observers()
    observer = observer_of(loop) or _task_factory(loop)
    return [] if observer is None else [observer]


def _task_factory(loop: asyncio.AbstractEventLoop) -> Observer | None:
    """Return the loop's `TaskFactory`, if it has one. It is registered with the first task that it makes."""
    from penstock.tasks.observers.factory import TaskFactory

    factory: object = loop.get_task_factory()
    return factory if isinstance(factory, TaskFactory) else None
