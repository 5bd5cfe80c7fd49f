"""When a request really came, if the loop was too far behind to read it at once. A leaf: anyone may look here."""

from __future__ import annotations

from contextvars import ContextVar

__all__ = ["arrived_at"]

# The loop's time in seconds at which the kernel reported what a held read has now brought. Set while the protocol gets
# the data, so tasks made there have it; not set at all for what was read in time.
arrived_at: ContextVar[float] = ContextVar("penstock_arrived_at")
