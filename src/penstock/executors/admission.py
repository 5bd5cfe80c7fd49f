"""Admission: whether a lane takes a job now, and which job is next. Pure bookkeeping over two fair queues.

No locks, no asyncio, no clock: the lane that owns it confines it to one thread or holds its own lock. A job is
admitted before anything is built for it; what its payload weighs is told afterwards.
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
    """What became of an offered job: in the queue, waiting for a place in it, or its caller's own to run."""

    QUEUED = "queued"
    WAITING = "waiting"
    CALLER_RUNS = "caller_runs"


class Admission:
    """The bounded queue of one lane, and the line of jobs that wait for a place in it (policy `wait`).

    The bytes of a payload are known only once it is built, after admission: `queued_bytes` can pass its bound by the
    jobs admitted meanwhile, and nothing is admitted until it is below again. The lane's duties: after whatever makes
    room (`take`, `discard`) call `admit` until it gives None, and after `set_size` call `excess` until it gives None.
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
        """Jobs admitted and not yet taken."""
        return len(self._queue)

    @property
    def waiting(self) -> int:
        """Jobs that wait for a place; nothing is built for them."""
        return len(self._waiting)

    def is_full(self) -> bool:
        """Whether jobs or bytes are at their bound."""
        return len(self._queue) >= self.limit or self.queued_bytes >= self._limit_bytes

    def offer(self, job: Job) -> tuple[Verdict, Job | None]:
        """Queue the job, or do what the policy says. The second value is the job it displaced (`drop_oldest`).

        Raises Overloaded (`shed`). The lane fails a displaced job with what `displaced` makes.
        """
        # while others wait for a place, a new one that finds room does not overtake them
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
        """The next job to displace while payloads weigh more than the bound (`drop_oldest`); never the only one."""
        if self._policy == "drop_oldest" and self.queued_bytes > self._limit_bytes and len(self._queue) > 1:
            return self._drop_oldest()
        return None

    def set_size(self, job: Job, size_bytes: int) -> None:
        """Its payload is built: a queued job's bytes count from now on."""
        if job in self._queue:
            self.queued_bytes += size_bytes - job.size_bytes
        job.size_bytes = size_bytes

    def peek(self) -> Job | None:
        """What `take` would give."""
        return self._queue.peek()

    def take(self) -> Job | None:
        """The next job, fair by key; it no longer counts."""
        job = self._queue.pop()
        if job is not None:
            self.queued_bytes -= job.size_bytes
        return job

    def admit(self) -> Job | None:
        """If there is room: the next waiting job, fair by key, which is queued now; the lane builds its payload."""
        if not self._waiting or self.is_full():
            return None
        job = self._waiting.pop()
        if job is not None:
            self._queue.push(job)
            self.queued_bytes += job.size_bytes
        return job

    def put_back(self, job: Job) -> None:
        """Queue a taken job again, at the head of its key, whatever the bounds."""
        self._queue.push_first(job)
        self.queued_bytes += job.size_bytes

    def discard(self, job: Job) -> bool:
        """Take the job out of whichever queue it is in; False if it is in neither."""
        if self._queue.discard(job):
            self.queued_bytes -= job.size_bytes
            return True
        return self._waiting.discard(job)

    def drain(self) -> list[Job]:
        """All jobs, queued and then waiting, which are in neither queue any more."""
        jobs = []
        for queue in (self._queue, self._waiting):
            while (job := queue.pop()) is not None:
                jobs.append(job)
        self.queued_bytes = 0
        return jobs

    def displaced(self, job: Job) -> Overloaded:
        """The exception for a job whose place a newer one took."""
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
