"""Backpressure: a service does what it can, refuses the rest at once, and its memory stands still."""

from typing import TYPE_CHECKING

from penstock.door import opened

if TYPE_CHECKING:
    from penstock.pressure.deadlineheaders import from_headers, to_headers
    from penstock.pressure.deadlines import deadline, expires_at, remaining_s
    from penstock.pressure.retries import RetryBudget, RetryStatistics
    from penstock.pressure.throttle import Throttle, ThrottleStatistics

__all__ = [
    "RetryBudget",
    "RetryStatistics",
    "Throttle",
    "ThrottleStatistics",
    "deadline",
    "expires_at",
    "from_headers",
    "remaining_s",
    "to_headers",
]

__getattr__ = opened(
    __name__,
    {
        "penstock.pressure.deadlineheaders": ("from_headers", "to_headers"),
        "penstock.pressure.deadlines": ("deadline", "expires_at", "remaining_s"),
        "penstock.pressure.retries": ("RetryBudget", "RetryStatistics"),
        "penstock.pressure.throttle": ("Throttle", "ThrottleStatistics"),
    },
)
