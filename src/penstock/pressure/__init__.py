"""Backpressure: what is taken on is bounded, what waits is bounded, and the rest is refused at once."""

from typing import TYPE_CHECKING

from penstock.door import opened

if TYPE_CHECKING:
    from penstock.pressure.boundedqueue import LifoQueue, PriorityQueue, Queue, QueueShutDown
    from penstock.pressure.capacity import CapacityLimiter, CapacityStatistics
    from penstock.pressure.channel import Channel, ChannelStatistics
    from penstock.pressure.groups import BoundedTaskGroup
    from penstock.pressure.mapping import map_bounded
    from penstock.pressure.semaphores import BoundedSemaphore, Semaphore

__all__ = [
    "BoundedSemaphore",
    "BoundedTaskGroup",
    "CapacityLimiter",
    "CapacityStatistics",
    "Channel",
    "ChannelStatistics",
    "LifoQueue",
    "PriorityQueue",
    "Queue",
    "QueueShutDown",
    "Semaphore",
    "map_bounded",
]

__getattr__ = opened(
    __name__,
    {
        "penstock.pressure.boundedqueue": ("LifoQueue", "PriorityQueue", "Queue", "QueueShutDown"),
        "penstock.pressure.capacity": ("CapacityLimiter", "CapacityStatistics"),
        "penstock.pressure.channel": ("Channel", "ChannelStatistics"),
        "penstock.pressure.groups": ("BoundedTaskGroup",),
        "penstock.pressure.mapping": ("map_bounded",),
        "penstock.pressure.semaphores": ("BoundedSemaphore", "Semaphore"),
    },
)
