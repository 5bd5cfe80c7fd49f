# cython: annotation_typing=False, nonecheck=True
"""The bounded queue of a lane: jobs in rotation between their keys, and the policies for a full queue.

Native where it is built (`jobqueue.pxd` has the types), this very source elsewhere. It has no lock, no asyncio and no
clock: its lane confines it to one thread or holds a lock. Every operation is O(1), the removal of any job included: a
cancelled job leaves no trace.
"""

from __future__ import annotations

from collections import OrderedDict
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["FairQueue", "JobQueue", "Verdict"]


class Verdict(Enum):
    """The result of an offer: the job is queued, waits for a place in the queue, or is to run in its caller."""

    QUEUED = "queued"
    WAITING = "waiting"
    CALLER_RUNS = "caller_runs"


class FairQueue:
    """Queues of jobs by `job.key`. A key with a job waits for at most one job of each other key."""

    def __init__(self) -> None:
        # Ordered dicts, not deques, for O(1) removal anywhere. A plain dict leaves a hole for each removed first item,
        # and walks over all holes to find the next. The value is the job's number in the order of arrival.
        # in the order of the rotation; no queue of a key is empty
        self._lines: OrderedDict[Hashable, OrderedDict[Any, int]] = OrderedDict()
        self._count = 0
        self._oldest = self._newest = 0
        # all jobs by arrival, from the first call of `pop_oldest` on
        self._ages: OrderedDict[Any, int] | None = None

    def __len__(self) -> int:
        return self._count

    def __contains__(self, job: Any) -> bool:
        return job in self._lines.get(job.key, ())

    def push(self, job: Any) -> None:
        """Add the job as the last of its key."""
        self._newest += 1
        self._insert(job, self._newest)

    def push_first(self, job: Any) -> None:
        """Add the job as the first of its key. A new key still joins the rotation at its end."""
        self._oldest -= 1
        self._insert(job, self._oldest)
        self._lines[job.key].move_to_end(job, last=False)
        if self._ages is not None:
            self._ages.move_to_end(job, last=False)

    def _insert(self, job: Any, age: int) -> None:
        line = self._lines.get(job.key)
        if line is None:
            line = self._lines[job.key] = OrderedDict()
        line[job] = age
        self._count += 1
        if self._ages is not None:
            self._ages[job] = age

    def peek(self) -> Any:
        """Return the job that `pop` would return."""
        for line in self._lines.values():
            return next(iter(line))
        return None

    def pop(self) -> Any:
        """Remove and return the next job of the next key in the rotation; None if the queue is empty."""
        if not self._count:
            return None
        key = next(iter(self._lines))
        line = self._lines[key]
        job, _ = line.popitem(last=False)
        if line:
            self._lines.move_to_end(key)
        else:
            del self._lines[key]
        self._count -= 1
        if self._ages is not None:
            del self._ages[job]
        return job

    def pop_oldest(self) -> Any:
        """Remove and return the oldest job of all keys; None if the queue is empty."""
        if not self._count:
            return None
        if self._ages is None:
            self._ages = self._by_age()
        job = next(iter(self._ages))
        self.discard(job)
        return job

    def _by_age(self) -> OrderedDict[Any, int]:
        entries = [entry for line in self._lines.values() for entry in line.items()]
        return OrderedDict(sorted(entries, key=lambda entry: entry[1]))

    def discard(self, job: Any) -> bool:
        """Remove the job. Return False if it is not in the queue."""
        line = self._lines.get(job.key)
        if line is None or job not in line:
            return False
        del line[job]
        if not line:
            del self._lines[job.key]
        self._count -= 1
        if self._ages is not None:
            del self._ages[job]
        return True


class JobQueue:
    """The bounded queue of one lane, and the queue of jobs that wait for a place in it (policy `wait`).

    A job is admitted before its payload is built, and the size of the payload is set afterwards: `queued_bytes` can
    exceed its bound by the jobs admitted meanwhile, and nothing is admitted until it is below the bound again. The lane
    calls `admit` until it returns None after `take` and `discard`, and `excess` until it returns None after `set_size`.
    A subclass has `_full()`, which makes the exception for a shed job.
    """

    def __init__(self, limit: int, limit_bytes: int, policy: str) -> None:
        self.limit = limit
        self.queued_bytes = 0
        self._limit_bytes = limit_bytes
        self._policy = policy
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

    def offer(self, job: Any) -> tuple[Verdict, Any]:
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
        raise self._full()  # type: ignore[attr-defined]

    def _drop_oldest(self) -> Any:
        oldest = self._queue.pop_oldest()
        if oldest is not None:
            self.queued_bytes -= oldest.size_bytes
        return oldest

    def excess(self) -> Any:
        """Remove and return the oldest job while the payloads exceed their bound (`drop_oldest`), never the only
        job."""
        if self._policy == "drop_oldest" and self.queued_bytes > self._limit_bytes and len(self._queue) > 1:
            return self._drop_oldest()
        return None

    def set_size(self, job: Any, size_bytes: int) -> None:
        """Set the size of a job's payload, which is built now. It counts while the job is queued."""
        if job in self._queue:
            self.queued_bytes += size_bytes - job.size_bytes
        job.size_bytes = size_bytes

    def peek(self) -> Any:
        """Return the job that `take` would return."""
        return self._queue.peek()

    def take(self) -> Any:
        """Remove and return the next job, fair by key; None if the queue is empty."""
        job = self._queue.pop()
        if job is not None:
            self.queued_bytes -= job.size_bytes
        return job

    def admit(self) -> Any:
        """Move the next waiting job into the queue, fair by key, and return it. Return None without room or jobs."""
        if not self._waiting or self.is_full():
            return None
        job = self._waiting.pop()
        if job is not None:
            self._queue.push(job)
            self.queued_bytes += job.size_bytes
        return job

    def put_back(self, job: Any) -> None:
        """Queue a taken job again, as the first of its key, without regard to the bounds."""
        self._queue.push_first(job)
        self.queued_bytes += job.size_bytes

    def discard(self, job: Any) -> bool:
        """Remove the job from the queue that it is in. Return False if it is in neither."""
        if self._queue.discard(job):
            self.queued_bytes -= job.size_bytes
            return True
        return self._waiting.discard(job)

    def drain(self) -> list[Any]:
        """Remove and return all jobs, first the queued and then the waiting ones."""
        jobs = []
        for queue in (self._queue, self._waiting):
            while (job := queue.pop()) is not None:
                jobs.append(job)
        self.queued_bytes = 0
        return jobs
