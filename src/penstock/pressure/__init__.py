"""Backpressure: bounds on work in flight, on waits and on memory; the rest is shed at once."""

from typing import TYPE_CHECKING

from penstock.lazy import lazy_names

if TYPE_CHECKING:
    from penstock.pressure import limits
    from penstock.pressure.admission.gate import Entry, Gate, GateStatistics, Priority, gates, statistics
    from penstock.pressure.client.deadline import deadline, expires_at, remaining_s
    from penstock.pressure.client.headers import from_headers, to_headers
    from penstock.pressure.client.retry import RetryBudget, RetryStatistics
    from penstock.pressure.client.throttle import Throttle, ThrottleStatistics
    from penstock.pressure.overload.connections import (
        MemoryStatistics,
        bound_memory,
        expect_request,
        memory_statistics,
        set_receive_deadline,
        set_receiving,
    )
    from penstock.pressure.overload.loop import LoopGate, LoopStatistics, loop_statistics
    from penstock.pressure.sync.channel import Channel, ChannelStatistics
    from penstock.pressure.sync.group import BoundedTaskGroup
    from penstock.pressure.sync.limiter import CapacityLimiter, CapacityStatistics
    from penstock.pressure.sync.map import map_bounded
    from penstock.pressure.sync.queue import LifoQueue, PriorityQueue, Queue, QueueShutDown
    from penstock.pressure.sync.semaphore import BoundedSemaphore, Semaphore

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
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "penstock.pressure.sync.queue": ("LifoQueue", "PriorityQueue", "Queue", "QueueShutDown"),
            "penstock.pressure.sync.limiter": ("CapacityLimiter", "CapacityStatistics"),
            "penstock.pressure.sync.channel": ("Channel", "ChannelStatistics"),
            "penstock.pressure.client.headers": ("from_headers", "to_headers"),
            "penstock.pressure.client.deadline": ("deadline", "expires_at", "remaining_s"),
            "penstock.pressure.admission.gate": ("Entry", "Gate", "GateStatistics", "Priority", "gates", "statistics"),
            "penstock.pressure.sync.group": ("BoundedTaskGroup",),
            "penstock.pressure.overload.loop": ("LoopGate", "LoopStatistics", "loop_statistics"),
            "penstock.pressure.sync.map": ("map_bounded",),
            "penstock.pressure.overload.connections": (
                "MemoryStatistics",
                "bound_memory",
                "expect_request",
                "memory_statistics",
                "set_receive_deadline",
                "set_receiving",
            ),
            "penstock.pressure.client.retry": ("RetryBudget", "RetryStatistics"),
            "penstock.pressure.sync.semaphore": ("BoundedSemaphore", "Semaphore"),
            "penstock.pressure.client.throttle": ("Throttle", "ThrottleStatistics"),
        },
        ("limits",),
    )
