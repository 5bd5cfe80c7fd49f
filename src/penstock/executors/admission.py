"""Admission: the bounded queue of a lane and the policies for a full one, with their exceptions.

`penstock._core.workers.jobqueue` does the bookkeeping. Its native class is used where it can be loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.core_source import chosen
from penstock.errors import Overloaded

if TYPE_CHECKING:
    from penstock._core.workers.jobqueue import FairQueue, JobQueue, Verdict
    from penstock.config import LaneConfig
    from penstock.executors.job import Job
else:
    _jobqueue = chosen("workers", "jobqueue")
    FairQueue, JobQueue, Verdict = _jobqueue.FairQueue, _jobqueue.JobQueue, _jobqueue.Verdict

__all__ = ["Admission", "FairQueue", "Verdict"]


class Admission(JobQueue):
    """The bounded queue of one lane, by the lane's name and config."""

    __slots__ = ("lane",)

    def __init__(self, lane: str, config: LaneConfig) -> None:
        super().__init__(config.queue_jobs, config.queue_bytes, config.full)
        self.lane = lane

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
