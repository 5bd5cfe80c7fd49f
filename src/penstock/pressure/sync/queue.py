"""`Queue`, `LifoQueue`, `PriorityQueue`: asyncio's, with a bound that must be given and O(1) cancellation.

The shutting down that asyncio has from 3.13 on is here on every Python. asyncio searches its line of waiters for each
that is cancelled; these do not.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sized

    Futures = deque[asyncio.Future[Any]]
else:
    Futures = deque

__all__ = ["LifoQueue", "PriorityQueue", "Queue", "QueueShutDown"]

T = TypeVar("T")

if sys.version_info >= (3, 13):
    from asyncio import QueueShutDown
else:

    class QueueShutDown(Exception):
        """The queue is shut down: nothing can be put, and nothing is left to be had."""


# up to so many waiters that have gone stay in a queue of waiters
FEW = 32


class FutureQueue(Futures):
    """Waiting futures, oldest first: a deque from which a cancelled one goes in amortised O(1).

    A cancelled future is not searched for: it is skipped when it is first, and removed with others when they are half
    of the queue. That costs less than an ordered dict.
    """

    # futures known to have gone; too small by those that were skipped before their tasks ran
    __slots__ = ("_gone_count",)

    def __init__(self) -> None:
        super().__init__()
        self._gone_count = 0

    def pop_waiting(self) -> asyncio.Future[Any] | None:
        """Take out and return the first future that waits; None if none does."""
        while self:
            first = self.popleft()
            if not first.done():
                return first
            self._gone_count -= 1
        return None

    def has_waiting(self) -> bool:
        """Return whether any future waits."""
        while self and self[0].done():
            self.popleft()
            self._gone_count -= 1
        return bool(self)

    def leave(self) -> None:
        """Account for a future that was cancelled. Its task calls this once."""
        self._gone_count += 1
        while self and self[-1].done():
            self.pop()
            self._gone_count -= 1
        if self.has_waiting() and self._gone_count > FEW and self._gone_count * 2 > len(self):
            self.sweep()

    def sweep(self) -> None:
        """Remove all futures that do not wait."""
        waiting = [future for future in self if not future.done()]
        self._gone_count -= len(self) - len(waiting)
        self.clear()
        self.extend(waiting)


class Queue(asyncio.Queue[T]):
    """A queue of at most `maxsize` items, in all else an `asyncio.Queue` as Python 3.13 has it.

    Raises `asyncio.QueueFull` and `asyncio.QueueEmpty` from the calls that do not wait, `QueueShutDown` once it is shut
    down. There is no queue without a bound: `maxsize` below 1 raises ValueError.
    """

    _maxsize: int
    _queue: Sized
    _unfinished_tasks: int
    _finished: asyncio.Event

    def __init__(self, maxsize: int) -> None:
        """`maxsize` is how many items it holds before `put()` waits."""
        if maxsize < 1:
            raise ValueError(f"maxsize = {maxsize}: a queue has a bound, 1 or more")
        super().__init__(maxsize)
        self._is_shutdown = False
        # over asyncio's deques of the same names, which its repr counts
        self._getters = FutureQueue()
        self._putters = FutureQueue()

    def _format(self) -> str:
        for waiters in (self._getters, self._putters):
            waiters.sweep()
        text: str = super()._format()
        return text + " shutdown" if self._is_shutdown and not text.endswith(" shutdown") else text

    async def put(self, item: T) -> None:
        """Put an item in, waiting while the queue is full. Raises `QueueShutDown` if it is shut down meanwhile."""
        while self.qsize() >= self._maxsize and not self._is_shutdown:
            await self._wait_in(self._putters, self.full)
        self.put_nowait(item)

    def put_nowait(self, item: T) -> None:
        """Put an item in; `asyncio.QueueFull` if there is no place, `QueueShutDown` if it is shut down."""
        if self._is_shutdown:
            raise QueueShutDown
        if self.qsize() >= self._maxsize:
            raise asyncio.QueueFull
        self._put(item)
        self._unfinished_tasks += 1
        self._finished.clear()
        if self._getters:
            self._wakeup_next(self._getters)

    async def get(self) -> T:
        """The next item, waiting until there is one. Raises `QueueShutDown` if there will be none."""
        while not self._queue and not self._is_shutdown:
            await self._wait_in(self._getters, self.empty)
        return self.get_nowait()

    def get_nowait(self) -> T:
        """The next item; `asyncio.QueueEmpty` if there is none, `QueueShutDown` if there will be none."""
        if not self._queue:
            raise QueueShutDown if self._is_shutdown else asyncio.QueueEmpty
        item = self._get()
        if self._putters:
            self._wakeup_next(self._putters)
        return item

    def _awaited_in(self, method: str) -> tuple[str, str]:
        """What task telemetry says of who waits here: kind and state."""
        return "queue", f"{'full' if method == 'put' else 'empty'}, maxsize {self._maxsize}"

    async def _wait_in(self, waiters: FutureQueue, in_vain: Any) -> None:
        """Wait to be woken. A task that is cancelled after that wakes the next one, unless `in_vain()`."""
        future: asyncio.Future[None] = self._get_loop().create_future()  # type: ignore[attr-defined]
        waiters.append(future)
        try:
            await future
        except BaseException:
            if future.cancelled():
                waiters.leave()
            elif not future.done():
                # the coroutine is closed while it waits
                waiters.remove(future)
            elif not in_vain():
                self._wakeup_next(waiters)
            raise

    def _wakeup_next(self, waiters: FutureQueue) -> None:
        future = waiters.pop_waiting()
        if future is not None:
            future.set_result(None)

    def shutdown(self, immediate: bool = False) -> None:
        """Nothing can be put from now on. `get()` gives what is left, then raises; if `immediate`, nothing is left.

        What is thrown away counts as done for `join()`, which may end by it.
        """
        self._is_shutdown = True
        while immediate and not self.empty():
            self._get()
            if self._unfinished_tasks > 0:
                self.task_done()
        for waiters in (self._getters, self._putters):
            while waiters:
                self._wakeup_next(waiters)


class PriorityQueue(Queue[T], asyncio.PriorityQueue[T]):  # type: ignore[type-var]
    """A `Queue` that gives the lowest item first."""


class LifoQueue(Queue[T], asyncio.LifoQueue[T]):
    """A `Queue` that gives the newest item first."""
