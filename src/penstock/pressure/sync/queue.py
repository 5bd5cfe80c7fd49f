"""`Queue`, `LifoQueue` and `PriorityQueue`: asyncio's queues with a required bound and O(1) cancellation.

They have the `shutdown()` of Python 3.13 on every Python. asyncio searches its queue of waiters for each cancelled one;
these queues do not.
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
        """The error of an operation on a queue that is shut down."""


# a queue of waiters may keep so many cancelled ones
FEW = 32


class FutureQueue(Futures):
    """A deque of waiting futures, oldest first, with removal of cancelled ones in amortised O(1).

    A cancelled future is skipped when it is first, and removed with all others once they are half of the queue. That
    costs less than an ordered dict.
    """

    # the count of cancelled futures inside; lower by the futures that were skipped before their tasks ran
    __slots__ = ("_gone_count",)

    def __init__(self) -> None:
        super().__init__()
        self._gone_count = 0

    def pop_waiting(self) -> asyncio.Future[Any] | None:
        """Remove and return the first waiting future; None if there is none."""
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
    """A queue of at most `maxsize` items, otherwise the `asyncio.Queue` of Python 3.13.

    Methods that do not wait raise `asyncio.QueueFull` and `asyncio.QueueEmpty`. A queue that is shut down raises
    `QueueShutDown`. Raises ValueError for a `maxsize` below 1, because every queue has a bound.
    """

    _maxsize: int
    _queue: Sized
    _unfinished_tasks: int
    _finished: asyncio.Event

    def __init__(self, maxsize: int) -> None:
        if maxsize < 1:
            raise ValueError(f"maxsize = {maxsize}: must be at least 1")
        super().__init__(maxsize)
        self._is_shutdown = False
        # these replace asyncio's deques of the same names, which its repr counts
        self._getters = FutureQueue()
        self._putters = FutureQueue()

    def _format(self) -> str:
        for waiters in (self._getters, self._putters):
            waiters.sweep()
        text: str = super()._format()
        return text + " shutdown" if self._is_shutdown and not text.endswith(" shutdown") else text

    async def put(self, item: T) -> None:
        """Put an item; wait while the queue is full. Raises `QueueShutDown` if the queue is or gets shut down."""
        while self.qsize() >= self._maxsize and not self._is_shutdown:
            await self._wait_in(self._putters, self.full)
        self.put_nowait(item)

    def put_nowait(self, item: T) -> None:
        """Put an item without waiting.

        Raises `asyncio.QueueFull` if there is no place, and `QueueShutDown` if the queue is shut down.
        """
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
        """Return the next item; wait until there is one. Raises `QueueShutDown` if shut down and empty."""
        while not self._queue and not self._is_shutdown:
            await self._wait_in(self._getters, self.empty)
        return self.get_nowait()

    def get_nowait(self) -> T:
        """Return the next item without waiting.

        Raises `asyncio.QueueEmpty` if there is none, and `QueueShutDown` if the queue is also shut down.
        """
        if not self._queue:
            raise QueueShutDown if self._is_shutdown else asyncio.QueueEmpty
        item = self._get()
        if self._putters:
            self._wakeup_next(self._putters)
        return item

    def _awaited_in(self, method: str) -> tuple[str, str]:
        """Return kind and state for task telemetry, which shows them for a waiting task."""
        return "queue", f"{'full' if method == 'put' else 'empty'}, maxsize {self._maxsize}"

    async def _wait_in(self, waiters: FutureQueue, is_blocked: Any) -> None:
        """Wait to be woken. If the task is cancelled after that, wake the next waiter unless `is_blocked()`."""
        future: asyncio.Future[None] = self._get_loop().create_future()  # type: ignore[attr-defined]
        waiters.append(future)
        try:
            await future
        except BaseException:
            if future.cancelled():
                waiters.leave()
            elif not future.done():
                # the coroutine was closed during its wait
                waiters.remove(future)
            elif not is_blocked():
                self._wakeup_next(waiters)
            raise

    def _wakeup_next(self, waiters: FutureQueue) -> None:
        future = waiters.pop_waiting()
        if future is not None:
            future.set_result(None)

    def shutdown(self, immediate: bool = False) -> None:
        """Shut the queue down: `put()` raises from now on, and `get()` once the queue is empty.

        If `immediate`, discard all items; they count as done, so that `join()` may return.
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
    """A `Queue` that returns the lowest item first."""


class LifoQueue(Queue[T], asyncio.LifoQueue[T]):
    """A `Queue` that returns the newest item first."""
