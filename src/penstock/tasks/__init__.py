"""Task telemetry: the counts and times of all tasks, the loop's own figures, and findings about both."""

from typing import TYPE_CHECKING

from penstock.lazy import lazy_names

if TYPE_CHECKING:
    from penstock.tasks.api import (
        await_graph,
        dump_trace,
        findings,
        live,
        off_finding,
        on_finding,
        set_level,
        sites,
        statistics,
        trace_on_signal,
    )
    from penstock.tasks.awaits.graph import AwaitGraph
    from penstock.tasks.finding import Finding
    from penstock.tasks.observers.factory import TaskFactory
    from penstock.tasks.place import Place
    from penstock.tasks.records import LiveTask, LoopFigures, SiteStatistics, TaskStatistics
    from penstock.tasks.spawning import spawn, spawn_when_free

__all__ = [
    "AwaitGraph",
    "Finding",
    "LiveTask",
    "LoopFigures",
    "Place",
    "SiteStatistics",
    "TaskFactory",
    "TaskStatistics",
    "await_graph",
    "dump_trace",
    "findings",
    "live",
    "off_finding",
    "on_finding",
    "set_level",
    "sites",
    "spawn",
    "spawn_when_free",
    "statistics",
    "trace_on_signal",
]

if not TYPE_CHECKING:
    _READING = "await_graph", "dump_trace", "findings", "live", "off_finding", "on_finding", "set_level", "sites"
    _RECORDS = "LiveTask", "LoopFigures", "SiteStatistics", "TaskStatistics"
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "penstock.tasks.observers.factory": ("TaskFactory",),
            "penstock.tasks.finding": ("Finding",),
            "penstock.tasks.place": ("Place",),
            "penstock.tasks.awaits.graph": ("AwaitGraph",),
            "penstock.tasks.api": (*_READING, "statistics", "trace_on_signal"),
            "penstock.tasks.records": _RECORDS,
            "penstock.tasks.spawning": ("spawn", "spawn_when_free"),
        },
    )
