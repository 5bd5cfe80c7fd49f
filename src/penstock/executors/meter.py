"""What a lane counts, and the frozen picture of it that `statistics()` gives.

Times go into log-linear buckets of fixed memory: 16 to each power of two, so a quantile is off by at most 3 %. Not
thread-safe: the lane that owns a meter confines it or holds its own lock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LaneMeter", "LaneStatistics", "Quantiles"]

OUTCOMES = ("ok", "error", "timeout", "cancelled", "worker_lost")
SHED_REASONS = ("full", "displaced")
TRANSFER_PATHS = ("out_inband", "out_shm", "in_inband", "in_shm")
RESTART_CAUSES = ("crash", "timeout", "cancelled", "max_jobs", "age", "rss", "idle")


@dataclass(frozen=True, slots=True)
class Quantiles:
    """How long something took, in seconds, over all jobs so far; zeros where `count` is 0."""

    count: int = 0
    mean_s: float = 0.0
    p50_s: float = 0.0
    p90_s: float = 0.0
    p99_s: float = 0.0
    max_s: float = 0.0


@dataclass(frozen=True, slots=True)
class LaneStatistics:
    """A lane at one moment. Gauges are of now; `completed`, `shed`, `transfer_bytes`, `restarts` and times so far."""

    name: str
    # threads, processes, interpreters, dask, ray or executor
    kind: str
    workers: int
    workers_busy: int
    workers_limit: int
    # admitted and not yet with a worker; waiting for a place in the queue; with a worker
    queued: int
    waiting: int
    running: int
    queue_limit: int
    # outcome -> jobs: ok, error, timeout, cancelled, worker_lost
    completed: Mapping[str, int]
    # reason -> jobs refused: full, displaced
    shed: Mapping[str, int]
    # from the offer to the start, and from the start to the end
    wait: Quantiles = field(default_factory=Quantiles)
    run: Quantiles = field(default_factory=Quantiles)
    # path -> bytes: out_inband, out_shm, in_inband, in_shm ("out" is to the worker)
    transfer_bytes: Mapping[str, int] = field(default_factory=dict)
    # cause -> workers replaced or ended: crash, timeout, cancelled, max_jobs, age, rss, idle
    restarts: Mapping[str, int] = field(default_factory=dict)


# The bucket of a time below 32 ns is the time; of any other it is its five highest bits and how far they are shifted.
HIGH_BITS = 5
# 2**45 ns are 9.8 hours; what takes longer counts as that
MOST_BITS = 45
LONGEST_NS = (1 << MOST_BITS) - 1
BUCKETS = ((MOST_BITS - HIGH_BITS) << (HIGH_BITS - 1)) + (1 << HIGH_BITS)


def _middle_ns(bucket: int) -> float:
    """The middle of the times that a bucket holds."""
    shift = max(0, (bucket >> (HIGH_BITS - 1)) - 1)
    return ((bucket - (shift << (HIGH_BITS - 1))) << shift) + ((1 << shift) - 1) / 2


class _Times:
    """Times in buckets."""

    __slots__ = ("buckets", "count", "longest_ns", "total_ns")

    def __init__(self) -> None:
        self.buckets = [0] * BUCKETS
        self.count = self.total_ns = self.longest_ns = 0

    def add(self, ns: int) -> None:
        self.count += 1
        self.total_ns += ns
        if ns > self.longest_ns:
            self.longest_ns = ns
        if ns > LONGEST_NS:
            ns = LONGEST_NS
        shift = ns.bit_length() - HIGH_BITS
        self.buckets[ns if shift <= 0 else (shift << (HIGH_BITS - 1)) + (ns >> shift)] += 1

    def quantiles(self) -> Quantiles:
        if not self.count:
            return Quantiles()
        p50, p90, p99 = (self._quantile_s(share) for share in (0.5, 0.9, 0.99))
        return Quantiles(self.count, self.total_ns / self.count / 1e9, p50, p90, p99, self.longest_ns / 1e9)

    def _quantile_s(self, share: float) -> float:
        rank, seen = share * self.count, 0
        for bucket, held in enumerate(self.buckets):
            seen += held
            if held and seen >= rank:
                return min(_middle_ns(bucket), self.longest_ns) / 1e9
        return self.longest_ns / 1e9


class LaneMeter:
    """The counts of one lane since it was made; `name` and `kind` are the lane's."""

    __slots__ = ("_completed", "_moved", "_ran", "_restarts", "_shed", "_waited", "kind", "name")

    def __init__(self, name: str, kind: str) -> None:
        self.name = name
        self.kind = kind
        self._waited, self._ran = _Times(), _Times()
        self._completed = dict.fromkeys(OUTCOMES, 0)
        self._shed = dict.fromkeys(SHED_REASONS, 0)
        self._moved = dict.fromkeys(TRANSFER_PATHS, 0)
        self._restarts = dict.fromkeys(RESTART_CAUSES, 0)

    def waited(self, ns: int) -> None:
        """A job has come to a worker, so long after its offer."""
        self._waited.add(ns)

    def ran(self, ns: int) -> None:
        """A worker had a job for so long."""
        self._ran.add(ns)

    def ended(self, outcome: str) -> None:
        """A job has come to its end: ok, error, timeout, cancelled or worker_lost."""
        self._completed[outcome] += 1

    def shed(self, reason: str) -> None:
        """A job was refused: full or displaced."""
        self._shed[reason] += 1

    def moved(self, path: str, size_bytes: int) -> None:
        """Bytes went to a worker (out_inband, out_shm) or came from one (in_inband, in_shm)."""
        self._moved[path] += size_bytes

    def restarted(self, cause: str) -> None:
        """A worker has ended: crash, timeout, cancelled, max_jobs, age, rss or idle."""
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
        """The counts so far with the gauges of now."""
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
            wait=self._waited.quantiles(),
            run=self._ran.quantiles(),
            transfer_bytes=self._moved.copy(),
            restarts=self._restarts.copy(),
        )
