"""Executors: lanes of threads, processes and other backends, their sizes, and the functions that offload calls."""

from typing import TYPE_CHECKING

from penstock.lazy import lazy_names

if TYPE_CHECKING:
    from penstock.executors.cores import Cores, current_cores, usable_cores
    from penstock.executors.counters import LaneStatistics
    from penstock.executors.lanes import LaneSet
    from penstock.executors.offloading import Offload, offload, offloaded, statistics, to_thread
    from penstock.executors.processes.lane import ProcessLane
    from penstock.executors.threads.lane import ThreadLane

__all__ = [
    "Cores",
    "LaneSet",
    "LaneStatistics",
    "Offload",
    "ProcessLane",
    "ThreadLane",
    "current_cores",
    "offload",
    "offloaded",
    "statistics",
    "to_thread",
    "usable_cores",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "penstock.executors.offloading": ("Offload", "offload", "offloaded", "statistics", "to_thread"),
            "penstock.executors.lanes": ("LaneSet",),
            "penstock.executors.counters": ("LaneStatistics",),
            "penstock.executors.processes.lane": ("ProcessLane",),
            "penstock.executors.cores": ("Cores", "current_cores", "usable_cores"),
            "penstock.executors.threads.lane": ("ThreadLane",),
        },
    )
