"""Executors: lanes that run calls elsewhere, how large they are, and the functions that programs call."""

from penstock.executors.lanes import LaneSet
from penstock.executors.offload import offload, offloaded, statistics, to_thread
from penstock.executors.sizing import Cores, current_cores, usable_cores
from penstock.executors.statistics import LaneStatistics, Quantiles

__all__ = [
    "Cores",
    "LaneSet",
    "LaneStatistics",
    "Quantiles",
    "current_cores",
    "offload",
    "offloaded",
    "statistics",
    "to_thread",
    "usable_cores",
]
