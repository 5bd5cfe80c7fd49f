"""The deadline of the present context: `penstock.pressure.deadline` sets it; gates, clients and executors obey it.

A context variable, on the loop's clock. It stands here so that executors, which know nothing of pressure, can read it.
"""

from __future__ import annotations

import asyncio
import time
from contextvars import ContextVar

__all__ = ["expiry", "now_s"]

# when the answer is no longer wanted; None without a deadline
expiry: ContextVar[float | None] = ContextVar("penstock.deadline", default=None)


def now_s() -> float:
    """Return the running loop's time; in a thread without a loop, the clock that loops take it from."""
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        return time.monotonic()
