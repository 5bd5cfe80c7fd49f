"""Backpressure: a service does what it can, refuses the rest at once, and its memory stands still."""

from typing import TYPE_CHECKING

from penstock.door import opened

if TYPE_CHECKING:
    from penstock.pressure.gate import Entry, Gate, GateStatistics, Priority
    from penstock.pressure.loopgate import LoopGate, LoopStatistics, loop_statistics
    from penstock.pressure.registry import gates, statistics

__all__ = [
    "Entry",
    "Gate",
    "GateStatistics",
    "LoopGate",
    "LoopStatistics",
    "Priority",
    "gates",
    "loop_statistics",
    "statistics",
]

__getattr__ = opened(
    __name__,
    {
        "penstock.pressure.gate": ("Entry", "Gate", "GateStatistics", "Priority"),
        "penstock.pressure.loopgate": ("LoopGate", "LoopStatistics", "loop_statistics"),
        "penstock.pressure.registry": ("gates", "statistics"),
    },
)
