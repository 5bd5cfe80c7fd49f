"""A queue of jobs that is fair between keys: each key in turn gives one job, and within a key the first goes first.

Every operation is O(1), the removal of any job among them: a cancelled job leaves at once and nothing of it stays.
Knows no locks, clocks or lanes.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

    from penstock.executors.job import Job

__all__ = ["FairQueue"]

# Ordered dicts, not deques, for their O(1) removal anywhere; not plain dicts, which leave a hole where the first was
# and walk over all the holes to find the next first one. The value is the job's place in the order of arrival.
KeyQueue = OrderedDict["Job", int]


class FairQueue:
    """Jobs in lines by `job.key`. A key with a job waits for at most one job of each other key."""

    __slots__ = ("_ages", "_count", "_lines", "_newest", "_oldest")

    def __init__(self) -> None:
        # in the order of the rotation; no line is empty
        self._lines: OrderedDict[Hashable, KeyQueue] = OrderedDict()
        self._count = 0
        self._oldest = self._newest = 0
        # all jobs by arrival, kept from the first time that somebody asks for the oldest
        self._ages: KeyQueue | None = None

    def __len__(self) -> int:
        return self._count

    def __contains__(self, job: Job) -> bool:
        return job in self._lines.get(job.key, ())

    def push(self, job: Job) -> None:
        """Put the job at the end of its key's line."""
        self._newest += 1
        self._insert(job, self._newest)

    def push_first(self, job: Job) -> None:
        """Put the job at the head of its key's line; a key that had none joins the rotation at its end all the same."""
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
        """What `pop` would give."""
        for line in self._lines.values():
            return next(iter(line))
        return None

    def pop(self) -> Job | None:
        """The next job of the key whose turn it is; None if there is none."""
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
        """The job that has been here longest, whatever its key; None if there is none."""
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
        """Take the job out, wherever it stands; False if it is not here."""
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
