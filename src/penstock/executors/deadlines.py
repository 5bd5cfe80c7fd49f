"""Jobs by when their time is up, for lanes that watch many with one timer.

Buckets, not a heap of jobs: almost every job ends long before its time, and leaves at once at the cost of a set's
removal. Pure bookkeeping: no clock, no locks.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.executors.job import Job

__all__ = ["Deadlines"]

# A bucket is 1/128 to 1/64 of its jobs' timeout wide, and at least 2**21 ns, 2 ms: a job is told that much late at
# most, never early, and the jobs of one timeout, however many, share some 128 buckets.
FINEST_BITS = 21
SHARE_BITS = 7


def _due_ns(job: Job) -> int:
    """When the bucket of the job is emptied: the end of its time, rounded up."""
    assert job.expires_ns is not None
    bits = max(FINEST_BITS, (job.expires_ns - job.offered_ns).bit_length() - SHARE_BITS)
    return -(-job.expires_ns >> bits) << bits


class Deadlines:
    """The jobs that have a time; each is in until it is discarded or its time is up."""

    __slots__ = ("_buckets", "_order")

    def __init__(self) -> None:
        # an emptied bucket stays until it is the next one: it may be filled again, and is in `_order` once
        self._buckets: dict[int, set[Job]] = {}
        self._order: list[int] = []

    def add(self, job: Job) -> int:
        """Watch the job; when, on its clock, `expired` will give it."""
        due_ns = _due_ns(job)
        bucket = self._buckets.get(due_ns)
        if bucket is None:
            bucket = self._buckets[due_ns] = set()
            heappush(self._order, due_ns)
        bucket.add(job)
        return due_ns

    def discard(self, job: Job) -> None:
        """Watch it no more; nothing if it was not watched."""
        bucket = self._buckets.get(_due_ns(job))
        if bucket is not None:
            bucket.discard(job)

    def next_ns(self) -> int | None:
        """When `expired` will next have something to give; None while nothing is watched."""
        while self._order:
            due_ns = self._order[0]
            if self._buckets[due_ns]:
                return due_ns
            del self._buckets[heappop(self._order)]
        return None

    def expired(self, now_ns: int) -> list[Job]:
        """The jobs whose time is up, which are watched no more."""
        late: list[Job] = []
        while self._order and self._order[0] <= now_ns:
            late.extend(self._buckets.pop(heappop(self._order)))
        return late
