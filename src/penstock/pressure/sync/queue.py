"""`Queue`, `LifoQueue`, `PriorityQueue`: asyncio's, with a bound that must be given and O(1) cancellation.

The shutting down that asyncio has from 3.13 on is here on every Python. asyncio searches its line of waiters for each
that is cancelled; these do not.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any, TypeVar

from penstock.pressure.sync.line import Line

if TYPE_CHECKING:
    from collections.abc import Sized

__all__ = ["LifoQueue", "PriorityQueue", "Queue", "QueueShutDown"]

T = TypeVar("T")

if sys.version_info >= (3, 13):
    from asyncio import QueueShutDown
else:

    class QueueShutDown(Exception):
        """The queue is shut down: nothing can be put, and nothing is left to be had."""


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
        self._getters = Line()
        self._putters = Line()

    def _format(self) -> str:
        for line in (self._getters, self._putters):
            line.sweep()
        text: str = super()._format()
        return text + " shutdown" if self._is_shutdown and not text.endswith(" shutdown") else text

    async def put(self, item: T) -> None:
        """Put an item in, waiting while the queue is full. Raises `QueueShutDown` if it is shut down meanwhile."""
        while self.qsize() >= self._maxsize and not self._is_shutdown:
            await self._turn(self._putters, self.full)
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
            await self._turn(self._getters, self.empty)
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

    async def _turn(self, line: Line, in_vain: Any) -> None:
        """Wait in the line to be woken; who is woken and cancelled wakes the next, unless that would be `in_vain`."""
        future: asyncio.Future[None] = self._get_loop().create_future()  # type: ignore[attr-defined]
        line.append(future)
        try:
            await future
        except BaseException:
            if future.cancelled():
                line.leave()
            elif not future.done():
                # the coroutine is closed while it waits
                line.remove(future)
            elif not in_vain():
                self._wakeup_next(line)
            raise

    def _wakeup_next(self, waiters: Line) -> None:
        future = waiters.take()
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
        for line in (self._getters, self._putters):
            while line:
                self._wakeup_next(line)


class PriorityQueue(Queue[T], asyncio.PriorityQueue[T]):  # type: ignore[type-var]
    """A `Queue` that gives the lowest item first."""


class LifoQueue(Queue[T], asyncio.LifoQueue[T]):
    """A `Queue` that gives the newest item first."""
