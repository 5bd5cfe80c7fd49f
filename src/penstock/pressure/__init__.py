"""Backpressure: a service does what it can, refuses the rest at once, and its memory stands still."""

from typing import TYPE_CHECKING

from penstock.door import opened

if TYPE_CHECKING:
    from penstock.pressure.memory import (
        MemoryStatistics,
        bound_memory,
        expect_request,
        memory_statistics,
        set_receive_deadline,
    )

__all__ = ["MemoryStatistics", "bound_memory", "expect_request", "memory_statistics", "set_receive_deadline"]

__getattr__ = opened(__name__, {"penstock.pressure.memory": tuple(__all__)})
