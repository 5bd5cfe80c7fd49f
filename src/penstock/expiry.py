"""The deadline of the current context: a context variable with a time of the loop's clock.

`penstock.pressure.deadline` sets it; gates, clients and executors read it. It is a module of its own because executors
do not import `penstock.pressure`.
"""

from __future__ import annotations

import asyncio
import time
from contextvars import ContextVar

__all__ = ["expiry", "now_s"]

# the deadline in seconds of the clock; None without one
expiry: ContextVar[float | None] = ContextVar("penstock.deadline", default=None)


def now_s() -> float:
    """Return the running loop's time in seconds; without a running loop, the monotonic clock."""
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        return time.monotonic()
