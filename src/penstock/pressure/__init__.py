"""Backpressure: a service does what it can, refuses the rest at once, and its memory stands still."""

from typing import TYPE_CHECKING

from penstock.door import opened

if TYPE_CHECKING:
    from penstock.pressure.gate import Entry, Gate, GateStatistics, Priority
    from penstock.pressure.registry import gates, statistics

__all__ = ["Entry", "Gate", "GateStatistics", "Priority", "gates", "statistics"]

__getattr__ = opened(
    __name__,
    {
        "penstock.pressure.gate": ("Entry", "Gate", "GateStatistics", "Priority"),
        "penstock.pressure.registry": ("gates", "statistics"),
    },
)
