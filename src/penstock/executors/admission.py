"""Admission: the bounded queue of a lane and the policies for a full one. Bookkeeping over two fair queues.

It has no locks, no asyncio and no clock: its lane confines it to one thread or holds a lock. A job is admitted before
its payload is built; the size of the payload is set afterwards.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from penstock.errors import Overloaded
from penstock.executors.fairqueue import FairQueue

if TYPE_CHECKING:
    from penstock.config import LaneConfig
    from penstock.executors.job import Job

__all__ = ["Admission", "Verdict"]


class Verdict(Enum):
    """The result of an offer: the job is queued, waits for a place in the queue, or is to run in its caller."""

    QUEUED = "queued"
    WAITING = "waiting"
    CALLER_RUNS = "caller_runs"


class Admission:
    """The bounded queue of one lane, and the queue of jobs that wait for a place in it (policy `wait`).

    The size of a payload is known only after admission: `queued_bytes` can exceed its bound by the jobs admitted
    meanwhile, and nothing is admitted until it is below the bound again. The lane calls `admit` until it returns None
    after `take` and `discard`, and `excess` until it returns None after `set_size`.
    """

    __slots__ = ("_limit_bytes", "_policy", "_queue", "_waiting", "lane", "limit", "queued_bytes")

    def __init__(self, lane: str, config: LaneConfig) -> None:
        self.lane = lane
        self.limit = config.queue_jobs
        self.queued_bytes = 0
        self._limit_bytes = config.queue_bytes
        self._policy = config.full
        self._queue = FairQueue()
        self._waiting = FairQueue()

    @property
    def queued(self) -> int:
        """The number of jobs that are admitted and not yet taken."""
        return len(self._queue)

    @property
    def waiting(self) -> int:
        """The number of jobs that wait for a place; no payload is built for them."""
        return len(self._waiting)

    def is_full(self) -> bool:
        """Return whether the jobs or their bytes are at their bound."""
        return len(self._queue) >= self.limit or self.queued_bytes >= self._limit_bytes

    def offer(self, job: Job) -> tuple[Verdict, Job | None]:
        """Queue the job, or apply the policy. Return the verdict and the job that it displaces (`drop_oldest`).

        Raises Overloaded (`shed`). The lane fails a displaced job with the exception of `displaced`.
        """
        # a new job does not overtake those that wait for a place
        if not self.is_full() and not self._waiting:
            self._queue.push(job)
            return Verdict.QUEUED, None
        if self._policy == "wait":
            self._waiting.push(job)
            return Verdict.WAITING, None
        if self._policy == "drop_oldest":
            oldest = self._drop_oldest()
            self._queue.push(job)
            return Verdict.QUEUED, oldest
        if self._policy == "caller_runs":
            return Verdict.CALLER_RUNS, None
        raise self._full()

    def _drop_oldest(self) -> Job | None:
        oldest = self._queue.pop_oldest()
        if oldest is not None:
            self.queued_bytes -= oldest.size_bytes
        return oldest

    def excess(self) -> Job | None:
        """Remove and return the oldest job while the payloads exceed their bound (`drop_oldest`), never the only
        job."""
        if self._policy == "drop_oldest" and self.queued_bytes > self._limit_bytes and len(self._queue) > 1:
            return self._drop_oldest()
        return None

    def set_size(self, job: Job, size_bytes: int) -> None:
        """Set the size of a job's payload, which is built now. It counts while the job is queued."""
        if job in self._queue:
            self.queued_bytes += size_bytes - job.size_bytes
        job.size_bytes = size_bytes

    def peek(self) -> Job | None:
        """Return the job that `take` would return."""
        return self._queue.peek()

    def take(self) -> Job | None:
        """Remove and return the next job, fair by key; None if the queue is empty."""
        job = self._queue.pop()
        if job is not None:
            self.queued_bytes -= job.size_bytes
        return job

    def admit(self) -> Job | None:
        """Move the next waiting job into the queue, fair by key, and return it. Return None without room or jobs."""
        if not self._waiting or self.is_full():
            return None
        job = self._waiting.pop()
        if job is not None:
            self._queue.push(job)
            self.queued_bytes += job.size_bytes
        return job

    def put_back(self, job: Job) -> None:
        """Queue a taken job again, as the first of its key, without regard to the bounds."""
        self._queue.push_first(job)
        self.queued_bytes += job.size_bytes

    def discard(self, job: Job) -> bool:
        """Remove the job from the queue that it is in. Return False if it is in neither."""
        if self._queue.discard(job):
            self.queued_bytes -= job.size_bytes
            return True
        return self._waiting.discard(job)

    def drain(self) -> list[Job]:
        """Remove and return all jobs, first the queued and then the waiting ones."""
        jobs = []
        for queue in (self._queue, self._waiting):
            while (job := queue.pop()) is not None:
                jobs.append(job)
        self.queued_bytes = 0
        return jobs

    def displaced(self, job: Job) -> Overloaded:
        """Make the exception for a job that a newer one has displaced."""
        message = (
            f"{job.name}: displaced by a newer job: lane {self.lane!r} is full ({self._bound_met()}) "
            "and its policy is drop_oldest; raise its queue_jobs, queue_bytes or workers"
        )
        return Overloaded(message, reason="displaced", queued=self.queued, limit=self.limit)

    def _full(self) -> Overloaded:
        message = (
            f"lane {self.lane!r} is full ({self._bound_met()}): try again later, raise its queue_jobs, queue_bytes "
            'or workers, or choose full = "wait"'
        )
        return Overloaded(message, reason="full", queued=self.queued, limit=self.limit)

    def _bound_met(self) -> str:
        if self.queued_bytes >= self._limit_bytes:
            return f"{self.queued_bytes} bytes of payload queued, limit {self._limit_bytes}"
        return f"{self.queued} jobs queued, limit {self.limit}"
