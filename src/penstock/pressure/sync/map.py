"""`map_bounded()`: an async function over each item of a source, a bounded number at a time, as an async iterator.

One task, the feeder, reads the source and starts a task for each item; it takes a place before it reads, and a place
is free again when a result is handed out. So neither calls nor results pile up when the consumer is slow.
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
    """The results of `fn(item)` for each item of `source`, sync or async, with at most `limit` calls running.

    In the order of the items, or, not `ordered`, as they are done. No more than `limit` items are taken from the source
    before their results are handed out. The first failure, of a call or of the source, cancels the calls that run, and
    is raised once they have ended; results that were not handed out are lost. Ending early (`aclose()`, a cancelled
    consumer) also cancels and awaits them; after a mere `break` the loop does so soon after, so close it by
    `contextlib.aclosing` to know when. A source that is a generator is then closed too. Raises ValueError for `limit`
    below 1, TypeError for what is no source.
    """
    if limit < 1:
        raise ValueError(f"limit = {limit}: must be 1 or more, or nothing could ever run")
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
    """What is between the source and the consumer. Refers to neither the consumer nor its generator, which a `break`
    must be able to collect.
    """

    def __init__(self, fn: Callable[[T], Awaitable[R]], items: AsyncIterator[T], limit: int, ordered: bool) -> None:
        self._fn = fn
        self._items = items
        self._places = Semaphore(limit)
        self._running: set[asyncio.Future[R]] = set()
        # results to come, in order; or those that are there, as they came
        self._results: deque[asyncio.Future[R]] = deque()
        self._ordered = ordered
        self._feeder: asyncio.Task[None] | None = None
        self._problem: BaseException | None = None
        # not what the feeder's done() says: that is so before its end has been looked at
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
                # a source may hold back a cancellation
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
        """The first failure ends all. Each has been looked at, so that asyncio does not report it as forgotten."""
        problem: BaseException | None = (
            asyncio.CancelledError("a call of map_bounded() was cancelled") if ended.cancelled() else ended.exception()
        )
        if problem is not None and self._problem is None:
            self._problem = problem
            self._cancel()

    def _cancel(self) -> set[asyncio.Future[Any]]:
        """Cancel what runs, once: a call may be busy with its own ending. Gives what has not ended."""
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
        """The next result to hand out; None if there are no more. Raises the first failure."""
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
        """Cancel what runs and wait for it, however often the waiting itself is cancelled."""
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
