"""Deadlines of a lane's jobs, and the thread that waits for the next one.

`Deadlines` is bookkeeping alone, without a clock or a lock. It keeps buckets, not a heap of jobs: almost every job ends
long before its deadline, and its removal is then the removal from a set.
"""

from __future__ import annotations

import threading
import time
import weakref
from heapq import heappop, heappush
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.executors.job import Job

__all__ = ["DeadlineThread", "Deadlines"]

# A bucket is as wide as 1/128 to 1/64 of its jobs' timeout, and at least 2**21 ns (2 ms). A job expires that much late
# at most, and never early. All jobs of one timeout share about 128 buckets.
FINEST_BITS = 21
SHARE_BITS = 7
# The longest sleep of a deadline thread.
LONGEST_SLEEP_S = 3600.0
# How long a deadline thread stays without a deadline: the next job with a timeout is often near, and to start a thread
# takes 100 us.
LINGER_NS = 10_000_000_000


def _due_ns(job: Job) -> int:
    """Return when the job's bucket expires: the end of its time, rounded up."""
    assert job.expires_ns is not None
    bits = max(FINEST_BITS, (job.expires_ns - job.offered_ns).bit_length() - SHARE_BITS)
    return -(-job.expires_ns >> bits) << bits


class Deadlines:
    """The jobs that have a deadline. A job stays until it is discarded or expires."""

    __slots__ = ("_buckets", "_order")

    def __init__(self) -> None:
        # an empty bucket stays until it is the next to expire: it may be filled again, and is in `_order` once
        self._buckets: dict[int, set[Job]] = {}
        self._order: list[int] = []

    def add(self, job: Job) -> int:
        """Add the job. Return when `expired` will give it, in ns on `time.monotonic_ns()`'s clock."""
        due_ns = _due_ns(job)
        bucket = self._buckets.get(due_ns)
        if bucket is None:
            bucket = self._buckets[due_ns] = set()
            heappush(self._order, due_ns)
        bucket.add(job)
        return due_ns

    def discard(self, job: Job) -> None:
        """Remove the job; do nothing if it is not here."""
        bucket = self._buckets.get(_due_ns(job))
        if bucket is not None:
            bucket.discard(job)

    def next_ns(self) -> int | None:
        """Return when the next bucket expires, in ns; None if there is no job."""
        while self._order:
            due_ns = self._order[0]
            if self._buckets[due_ns]:
                return due_ns
            del self._buckets[heappop(self._order)]
        return None

    def expired(self, now_ns: int) -> list[Job]:
        """Remove and return the jobs that have expired at `now_ns`."""
        late: list[Job] = []
        while self._order and self._order[0] <= now_ns:
            late.extend(self._buckets.pop(heappop(self._order)))
        return late


class DeadlineThread:
    """The thread that calls a lane's `look` when something is due. It lives only while something is.

    The lane's lock guards it: `wake_by`, `rest` and `wake` are called under that lock, and `look` takes it. `look`
    calls `rest` with the time of the next look. A sleeping thread does not keep the lane alive.
    """

    __slots__ = ("_bell", "_is_lingering", "_look", "_name", "_until_ns", "thread")

    def __init__(self, name: str, look: Callable[[], None]) -> None:
        self.thread: threading.Thread | None = None
        self._name = name
        self._look = weakref.WeakMethod(look)
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._until_ns = 0
        self._is_lingering = False

    def wake_by(self, due_ns: int, daemon: bool) -> None:
        """Make sure that a look begins at `due_ns` at the latest, on `time.monotonic_ns()`'s clock."""
        self._is_lingering = False
        if self.thread is None:
            self._start(due_ns, daemon)
        elif due_ns < self._until_ns:
            # shorten the sleep instead of looking now: most jobs end long before their deadline
            self._until_ns = due_ns
            self._bell.put(None)

    def _start(self, due_ns: int, daemon: bool) -> None:
        self._until_ns = due_ns
        thread = threading.Thread(target=self._run, name=self._name, daemon=daemon)
        try:
            thread.start()
        except RuntimeError:
            return  # the system gives no more threads: the next deadline tries again
        self.thread = thread

    def rest(self, due_ns: int | None, may_linger: bool) -> None:
        """Sleep until `due_ns`. None: nothing is due, and the thread ends, at once or after it has lingered."""
        if due_ns is not None:
            self._until_ns = due_ns
        elif may_linger and not self._is_lingering:
            self._is_lingering, self._until_ns = True, time.monotonic_ns() + LINGER_NS
        else:
            self._is_lingering, self.thread = False, None

    def wake(self) -> None:
        """Have the thread look now."""
        self._until_ns = 0
        self._bell.put(None)

    def _run(self) -> None:
        while True:
            sleep_s = (self._until_ns - time.monotonic_ns()) / 1e9
            if sleep_s > 0:
                try:
                    self._bell.get(timeout=min(LONGEST_SLEEP_S, sleep_s))
                except Empty:
                    pass
                continue
            look = self._look()
            if look is None:
                return
            look()
            del look
            # only a look, under the lock, ends the thread; another thread may have been started since
            if self.thread is not threading.current_thread():
                return
