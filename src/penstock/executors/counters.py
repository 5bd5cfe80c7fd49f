"""The counters of a lane, and their frozen snapshot, which `statistics()` returns.

Times go into histograms of fixed memory (`penstock.times`). Counters are not thread-safe: a lane confines its counters
to one thread or holds a lock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from penstock.core_source import chosen
from penstock.times import Histogram, Times, taken

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penstock._core.workers.tally import Tally
else:
    Tally = chosen("workers", "tally").Tally

__all__ = ["LaneCounters", "LaneStatistics"]


@dataclass(frozen=True, slots=True)
class LaneStatistics:
    """A lane at one moment. `completed`, `shed`, `transfer_bytes`, `restarts` and the times count since its start; all
    other fields are gauges."""

    name: str
    # threads, processes, interpreters, dask, ray or executor
    kind: str
    workers: int
    workers_busy: int
    workers_limit: int
    # jobs that are admitted and not begun; that wait for a place in the queue; that a worker has
    queued: int
    waiting: int
    running: int
    queue_limit: int
    # outcome -> jobs: ok, error, timeout, cancelled, worker_lost
    completed: Mapping[str, int]
    # reason -> jobs shed: full, displaced
    shed: Mapping[str, int]
    # from the offer to the start, and from the start to the end
    wait: Times = field(default_factory=Times)
    run: Times = field(default_factory=Times)
    # path -> bytes: out_inband, out_shm, in_inband, in_shm ("out" is to the worker)
    transfer_bytes: Mapping[str, int] = field(default_factory=dict)
    # cause -> workers replaced or ended: crash, timeout, cancelled, max_jobs, age, rss, idle
    restarts: Mapping[str, int] = field(default_factory=dict)


class LaneCounters(Tally):
    """The counts of one lane since its start. `name` and `kind` are the lane's."""

    __slots__ = ("kind",)

    def __init__(self, name: str, kind: str) -> None:
        super().__init__(name, Histogram(), Histogram())
        self.kind = kind

    def snapshot(
        self,
        *,
        workers: int = 0,
        workers_busy: int = 0,
        workers_limit: int = 0,
        queued: int = 0,
        waiting: int = 0,
        running: int = 0,
        queue_limit: int = 0,
    ) -> LaneStatistics:
        """Return the counts together with the given gauges."""
        return LaneStatistics(
            name=self.name,
            kind=self.kind,
            workers=workers,
            workers_busy=workers_busy,
            workers_limit=workers_limit,
            queued=queued,
            waiting=waiting,
            running=running,
            queue_limit=queue_limit,
            completed=self._completed.copy(),
            shed=self._shed.copy(),
            wait=taken(self._waited),
            run=taken(self._ran),
            transfer_bytes=self._moved.copy(),
            restarts=self._restarts.copy(),
        )
