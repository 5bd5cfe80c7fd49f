"""The counters of a lane, and their frozen snapshot, which `statistics()` returns.

Times go into histograms of fixed memory (`penstock.times`). Counters are not thread-safe: a lane confines its counters
to one thread or holds a lock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from penstock.times import Histogram, Times, taken

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["LaneCounters", "LaneStatistics"]

OUTCOMES = ("ok", "error", "timeout", "cancelled", "worker_lost")
SHED_REASONS = ("full", "displaced")
TRANSFER_PATHS = ("out_inband", "out_shm", "in_inband", "in_shm")
RESTART_CAUSES = ("crash", "timeout", "cancelled", "max_jobs", "age", "rss", "idle")


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


class LaneCounters:
    """The counts of one lane since its start. `name` and `kind` are the lane's."""

    __slots__ = ("_completed", "_moved", "_ran", "_restarts", "_shed", "_waited", "kind", "listener", "name")

    def __init__(self, name: str, kind: str) -> None:
        self.name = name
        self.kind = kind
        # called for each finished and each shed job with ("job" or "shed", a text for people, its running time in ns)
        self.listener: Callable[[str, str, int], None] | None = None
        self._waited, self._ran = Histogram(), Histogram()
        self._completed = dict.fromkeys(OUTCOMES, 0)
        self._shed = dict.fromkeys(SHED_REASONS, 0)
        self._moved = dict.fromkeys(TRANSFER_PATHS, 0)
        self._restarts = dict.fromkeys(RESTART_CAUSES, 0)

    def waited(self, ns: int) -> None:
        """Count the time from the offer of a job to its start."""
        self._waited.add(ns)

    def ran(self, ns: int) -> None:
        """Count the running time of a job."""
        self._ran.add(ns)
        if self.listener is not None:
            self.listener("job", self.name, ns)

    def ended(self, outcome: str) -> None:
        """Count the outcome of a job: ok, error, timeout, cancelled or worker_lost."""
        self._completed[outcome] += 1

    def shed(self, reason: str) -> None:
        """Count a shed job. The reason is full or displaced."""
        self._shed[reason] += 1
        if self.listener is not None:
            self.listener("shed", f"{self.name}: {reason}", 0)

    def moved(self, path: str, size_bytes: int) -> None:
        """Count bytes to a worker (out_inband, out_shm) or from one (in_inband, in_shm)."""
        self._moved[path] += size_bytes

    def restarted(self, cause: str) -> None:
        """Count an ended worker. The cause is crash, timeout, cancelled, max_jobs, age, rss or idle."""
        self._restarts[cause] += 1

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
