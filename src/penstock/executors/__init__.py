"""Executors: lanes that run calls elsewhere, how large they are, and the functions that programs call."""

from typing import TYPE_CHECKING

from penstock.door import opened

if TYPE_CHECKING:
    from penstock.executors.calling import Offload, offload, offloaded, statistics, to_thread
    from penstock.executors.lanes import LaneSet
    from penstock.executors.meter import LaneStatistics
    from penstock.executors.processes import ProcessLane
    from penstock.executors.sizing import Cores, current_cores, usable_cores
    from penstock.executors.threads import ThreadLane

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
    __getattr__, __dir__ = opened(
        __name__,
        {
            "penstock.executors.calling": ("Offload", "offload", "offloaded", "statistics", "to_thread"),
            "penstock.executors.lanes": ("LaneSet",),
            "penstock.executors.meter": ("LaneStatistics",),
            "penstock.executors.processes": ("ProcessLane",),
            "penstock.executors.sizing": ("Cores", "current_cores", "usable_cores"),
            "penstock.executors.threads": ("ThreadLane",),
        },
    )
