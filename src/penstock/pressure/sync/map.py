"""`map_bounded()`: an async iterator over the results of an async function, with a bounded number of calls.

One task, the feeder, reads the source and starts a task for each item. It takes a place before it reads an item, and
the place is released when the consumer gets the result. So neither calls nor results accumulate behind a slow consumer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Generator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from penstock.pressure.sync.semaphore import Semaphore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

__all__ = ["map_bounded"]

T = TypeVar("T")
R = TypeVar("R")


def map_bounded(
    fn: Callable[[T], Awaitable[R]], source: AsyncIterable[T] | Iterable[T], limit: int, *, ordered: bool = True
) -> AsyncGenerator[R, None]:
    """Return an async iterator over the results of `fn(item)` for each item of `source`, sync or async.

    At most `limit` calls run at once, and at most `limit` items are taken from the source ahead of the consumer. The
    results come in the order of the items or, unless `ordered`, in the order of completion.

    The first failure of a call or of the source cancels all running calls and is raised once they have ended; results
    that were not consumed are lost. Ending early, by `aclose()` or a cancelled consumer, also cancels and awaits the
    calls, and closes a source that is a generator. After a mere `break` the loop does this soon; use
    `contextlib.aclosing` to do it at once.

    Raises ValueError for a `limit` below 1 and TypeError for a `source` that cannot be iterated.
    """
    if limit < 1:
        raise ValueError(f"limit = {limit}: must be at least 1")
    items = aiter(source) if isinstance(source, AsyncIterable) else _iterated(iter(source))
    return _results(_Mapping(fn, items, limit, ordered))


async def _iterated(items: Any) -> AsyncGenerator[Any, None]:
    try:
        for item in items:
            yield item
    finally:
        if isinstance(items, Generator):
            items.close()


async def _results(mapping: _Mapping[T, R]) -> AsyncGenerator[R, None]:
    try:
        mapping.start()
        while (done := await mapping.next()) is not None:
            yield done.result()
    finally:
        await mapping.close()


class _Mapping(Generic[T, R]):
    """The calls, results and feeder between the source and the consumer.

    It has no reference to the consumer or its generator, which must be collectable after a `break`.
    """

    def __init__(self, fn: Callable[[T], Awaitable[R]], items: AsyncIterator[T], limit: int, ordered: bool) -> None:
        self._fn = fn
        self._items = items
        self._places = Semaphore(limit)
        self._running: set[asyncio.Future[R]] = set()
        # calls in the order of their items if ordered, else ended calls in the order of completion
        self._results: deque[asyncio.Future[R]] = deque()
        self._ordered = ordered
        self._feeder: asyncio.Task[None] | None = None
        self._problem: BaseException | None = None
        # set after the feeder's end has been checked, while its done() is true before that
        self._fed = False
        self._ending = False
        self._consumer: asyncio.Future[None] | None = None

    def start(self) -> None:
        self._feeder = asyncio.create_task(self._feed())
        self._feeder.add_done_callback(self._on_fed)

    async def _feed(self) -> None:
        try:
            while not self._ending:
                await self._places.acquire()
                try:
                    item = await anext(self._items)
                except StopAsyncIteration:
                    return
                # a source may suppress a cancellation
                if not self._ending:
                    self._call(item)
        finally:
            if isinstance(self._items, AsyncGenerator):
                await self._items.aclose()

    def _call(self, item: T) -> None:
        call = asyncio.ensure_future(self._fn(item))
        self._running.add(call)
        if self._ordered:
            self._results.append(call)
        call.add_done_callback(self._on_done)

    def _on_fed(self, feeder: asyncio.Task[None]) -> None:
        self._fed = True
        self._note_end(feeder)
        self._wake_consumer()

    def _on_done(self, call: asyncio.Future[R]) -> None:
        self._running.discard(call)
        if not self._ordered:
            self._results.append(call)
        self._note_end(call)
        self._wake_consumer()

    def _note_end(self, ended: asyncio.Future[Any]) -> None:
        """Record the first failure and cancel the rest. Retrieve each exception, so that asyncio does not report it."""
        problem: BaseException | None = (
            asyncio.CancelledError("a call of map_bounded() was cancelled") if ended.cancelled() else ended.exception()
        )
        if problem is not None and self._problem is None:
            self._problem = problem
            self._cancel()

    def _cancel(self) -> set[asyncio.Future[Any]]:
        """Cancel the feeder and the calls, once, so that a call can finish its cleanup. Return the unended ones."""
        pending = {one for one in (self._feeder, *self._running) if one is not None and not one.done()}
        if not self._ending:
            self._ending = True
            for one in pending:
                one.cancel()
        return pending

    def _wake_consumer(self) -> None:
        if self._consumer is not None and not self._consumer.done():
            self._consumer.set_result(None)

    async def next(self) -> asyncio.Future[R] | None:
        """Return the next ended call; None after the last one. Raises the first failure."""
        while True:
            if self._problem is not None:
                raise self._problem
            if self._results and self._results[0].done():
                self._places.release()
                return self._results.popleft()
            if not self._results and not self._running and self._fed:
                return None
            self._consumer = asyncio.get_running_loop().create_future()
            await self._consumer

    async def close(self) -> None:
        """Cancel the feeder and the calls, and wait until they have ended even if this wait is cancelled."""
        interruption: asyncio.CancelledError | None = None
        pending = self._cancel()
        while pending:
            try:
                _, pending = await asyncio.wait(pending)
            except asyncio.CancelledError as problem:
                interruption = problem
                pending = {one for one in pending if not one.done()}
        if interruption is not None:
            raise interruption
