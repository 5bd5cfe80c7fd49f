"""Backpressure: a service does what it can, refuses the rest at once, and its memory stands still."""

from typing import TYPE_CHECKING

from penstock.door import opened

if TYPE_CHECKING:
    from penstock.pressure.deadlineheaders import from_headers, to_headers
    from penstock.pressure.deadlines import deadline, expires_at, remaining_s
    from penstock.pressure.gate import Entry, Gate, GateStatistics, Priority
    from penstock.pressure.loopgate import LoopGate, LoopStatistics, loop_statistics
    from penstock.pressure.registry import gates, statistics
    from penstock.pressure.retries import RetryBudget, RetryStatistics
    from penstock.pressure.throttle import Throttle, ThrottleStatistics

__all__ = [
    "Entry",
    "Gate",
    "GateStatistics",
    "LoopGate",
    "LoopStatistics",
    "Priority",
    "RetryBudget",
    "RetryStatistics",
    "Throttle",
    "ThrottleStatistics",
    "deadline",
    "expires_at",
    "from_headers",
    "gates",
    "loop_statistics",
    "remaining_s",
    "statistics",
    "to_headers",
]

__getattr__ = opened(
    __name__,
    {
        "penstock.pressure.deadlineheaders": ("from_headers", "to_headers"),
        "penstock.pressure.deadlines": ("deadline", "expires_at", "remaining_s"),
        "penstock.pressure.gate": ("Entry", "Gate", "GateStatistics", "Priority"),
        "penstock.pressure.loopgate": ("LoopGate", "LoopStatistics", "loop_statistics"),
        "penstock.pressure.registry": ("gates", "statistics"),
        "penstock.pressure.retries": ("RetryBudget", "RetryStatistics"),
        "penstock.pressure.throttle": ("Throttle", "ThrottleStatistics"),
    },
)
