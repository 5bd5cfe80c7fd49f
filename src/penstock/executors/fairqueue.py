"""A queue of jobs that is fair between keys: it takes one job of each key in rotation, in order of arrival within a
key.

Every operation is O(1), the removal of any job included: a cancelled job leaves no trace. The queue has no lock and no
clock.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

    from penstock.executors.job import Job

__all__ = ["FairQueue"]

# Ordered dicts, not deques, for O(1) removal anywhere. A plain dict leaves a hole for each removed first item, and
# walks over all holes to find the next. The value is the job's number in the order of arrival.
KeyQueue = OrderedDict["Job", int]


class FairQueue:
    """Queues of jobs by `job.key`. A key with a job waits for at most one job of each other key."""

    __slots__ = ("_ages", "_count", "_lines", "_newest", "_oldest")

    def __init__(self) -> None:
        # in the order of the rotation; no queue of a key is empty
        self._lines: OrderedDict[Hashable, KeyQueue] = OrderedDict()
        self._count = 0
        self._oldest = self._newest = 0
        # all jobs by arrival, from the first call of `pop_oldest` on
        self._ages: KeyQueue | None = None

    def __len__(self) -> int:
        return self._count

    def __contains__(self, job: Job) -> bool:
        return job in self._lines.get(job.key, ())

    def push(self, job: Job) -> None:
        """Add the job as the last of its key."""
        self._newest += 1
        self._insert(job, self._newest)

    def push_first(self, job: Job) -> None:
        """Add the job as the first of its key. A new key still joins the rotation at its end."""
        self._oldest -= 1
        self._insert(job, self._oldest)
        self._lines[job.key].move_to_end(job, last=False)
        if self._ages is not None:
            self._ages.move_to_end(job, last=False)

    def _insert(self, job: Job, age: int) -> None:
        line = self._lines.get(job.key)
        if line is None:
            line = self._lines[job.key] = OrderedDict()
        line[job] = age
        self._count += 1
        if self._ages is not None:
            self._ages[job] = age

    def peek(self) -> Job | None:
        """Return the job that `pop` would return."""
        for line in self._lines.values():
            return next(iter(line))
        return None

    def pop(self) -> Job | None:
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

    def pop_oldest(self) -> Job | None:
        """Remove and return the oldest job of all keys; None if the queue is empty."""
        if not self._count:
            return None
        if self._ages is None:
            self._ages = self._by_age()
        job = next(iter(self._ages))
        self.discard(job)
        return job

    def _by_age(self) -> KeyQueue:
        entries = [entry for line in self._lines.values() for entry in line.items()]
        return OrderedDict(sorted(entries, key=lambda entry: entry[1]))

    def discard(self, job: Job) -> bool:
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
