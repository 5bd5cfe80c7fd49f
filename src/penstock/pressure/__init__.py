"""Backpressure: a service does what it can, refuses the rest at once, and its memory stands still."""

from typing import TYPE_CHECKING

from penstock.door import opened

if TYPE_CHECKING:
    from penstock.pressure import limits
    from penstock.pressure.boundedqueue import LifoQueue, PriorityQueue, Queue, QueueShutDown
    from penstock.pressure.capacity import CapacityLimiter, CapacityStatistics
    from penstock.pressure.channel import Channel, ChannelStatistics
    from penstock.pressure.deadlineheaders import from_headers, to_headers
    from penstock.pressure.deadlines import deadline, expires_at, remaining_s
    from penstock.pressure.gate import Entry, Gate, GateStatistics, Priority
    from penstock.pressure.groups import BoundedTaskGroup
    from penstock.pressure.loopgate import LoopGate, LoopStatistics, loop_statistics
    from penstock.pressure.mapping import map_bounded
    from penstock.pressure.memory import (
        MemoryStatistics,
        bound_memory,
        expect_request,
        memory_statistics,
        set_receive_deadline,
        set_receiving,
    )
    from penstock.pressure.registry import gates, statistics
    from penstock.pressure.retries import RetryBudget, RetryStatistics
    from penstock.pressure.semaphores import BoundedSemaphore, Semaphore
    from penstock.pressure.throttle import Throttle, ThrottleStatistics

__all__ = [
    "BoundedSemaphore",
    "BoundedTaskGroup",
    "CapacityLimiter",
    "CapacityStatistics",
    "Channel",
    "ChannelStatistics",
    "Entry",
    "Gate",
    "GateStatistics",
    "LifoQueue",
    "LoopGate",
    "LoopStatistics",
    "MemoryStatistics",
    "Priority",
    "PriorityQueue",
    "Queue",
    "QueueShutDown",
    "RetryBudget",
    "RetryStatistics",
    "Semaphore",
    "Throttle",
    "ThrottleStatistics",
    "bound_memory",
    "deadline",
    "expect_request",
    "expires_at",
    "from_headers",
    "gates",
    "limits",
    "loop_statistics",
    "map_bounded",
    "memory_statistics",
    "remaining_s",
    "set_receive_deadline",
    "set_receiving",
    "statistics",
    "to_headers",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = opened(
        __name__,
        {
            "penstock.pressure.boundedqueue": ("LifoQueue", "PriorityQueue", "Queue", "QueueShutDown"),
            "penstock.pressure.capacity": ("CapacityLimiter", "CapacityStatistics"),
            "penstock.pressure.channel": ("Channel", "ChannelStatistics"),
            "penstock.pressure.deadlineheaders": ("from_headers", "to_headers"),
            "penstock.pressure.deadlines": ("deadline", "expires_at", "remaining_s"),
            "penstock.pressure.gate": ("Entry", "Gate", "GateStatistics", "Priority"),
            "penstock.pressure.groups": ("BoundedTaskGroup",),
            "penstock.pressure.loopgate": ("LoopGate", "LoopStatistics", "loop_statistics"),
            "penstock.pressure.mapping": ("map_bounded",),
            "penstock.pressure.memory": (
                "MemoryStatistics",
                "bound_memory",
                "expect_request",
                "memory_statistics",
                "set_receive_deadline",
                "set_receiving",
            ),
            "penstock.pressure.registry": ("gates", "statistics"),
            "penstock.pressure.retries": ("RetryBudget", "RetryStatistics"),
            "penstock.pressure.semaphores": ("BoundedSemaphore", "Semaphore"),
            "penstock.pressure.throttle": ("Throttle", "ThrottleStatistics"),
        },
        ("limits",),
    )
