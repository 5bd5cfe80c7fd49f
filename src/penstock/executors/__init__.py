"""Executors: lanes that run calls elsewhere, how large they are, and the functions that programs call."""

from penstock.executors.lanes import LaneSet
from penstock.executors.offload import offload, offloaded, statistics, to_thread
from penstock.executors.sizing import Cores, current_cores, usable_cores

__all__ = [
    "Cores",
    "LaneSet",
    "current_cores",
    "offload",
    "offloaded",
    "statistics",
    "to_thread",
    "usable_cores",
]
