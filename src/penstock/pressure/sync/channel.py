"""`Channel`: a bounded way for items between tasks, with two watermarks and an end.

Nobody is handed an item or a place by another task: a waiter is woken, and takes it itself when it runs. So one that is
cancelled just then has taken nothing, and the next is woken: no item is lost, none is there twice.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from penstock.errors import ChannelClosed

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Channel", "ChannelStatistics"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ChannelStatistics:
    """A channel's counts.

    `queued` items are inside, of the `size` that their sizes make together (their number, without a size function).
    `paused` is whether senders wait for it to fall to `low`.
    """

    queued: int
    size: int
    high: int
    low: int
    paused: bool
    closed: bool
    senders_waiting: int
    receivers_waiting: int
    sent: int
    received: int


class Channel(Generic[T]):
    """Items from any number of senders to any number of receivers, each to one of them, first in, first out.

    `send()` waits from the moment that `high` is reached until the channel is down at `low` (half of `high`, unless
    given), so that a sender works in stretches. Both count items, or what `size(item)` makes of them, bytes for
    instance; one item may go beyond `high`, so that even one larger than that gets through. Who waited first goes
    first. `close()` lets receivers have what is inside, and then ends them. The first wait binds it to the running
    loop; it is not for use from other threads.
    """

    def __init__(self, high: int, low: int | None = None, *, size: Callable[[T], int] | None = None) -> None:
        """ValueError unless 0 <= `low` < `high`."""
        self._high = high
        self._low = high // 2 if low is None else low
        if not 0 <= self._low < high:
            raise ValueError(f"watermarks high = {high}, low = {self._low}: must be 0 <= low < high")
        self._size_of = size
        self._items: deque[tuple[T, int]] = deque()
        # of the items, and of those that woken senders are about to put
        self._size = 0
        self._paused = False
        # those that wait, with the size of what they bring; who is cancelled may stand here until its task runs
        self._senders: OrderedDict[asyncio.Future[bool], int] = OrderedDict()
        self._receivers: OrderedDict[asyncio.Future[bool], None] = OrderedDict()
        # how many were woken for a place or an item, and have not run since
        self._placed = self._promised = 0
        self._sent = self._received = 0
        self._closed = False
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def __repr__(self) -> str:
        state = "closed" if self._closed else "paused" if self._paused else "open"
        return f"<Channel at {id(self):#x} [{state}, {len(self._items)} items, {self._size}/{self._high}]>"

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._closed

    def statistics(self) -> ChannelStatistics:
        """The counts as they are now."""
        return ChannelStatistics(
            queued=len(self._items),
            size=self._size,
            high=self._high,
            low=self._low,
            paused=self._paused,
            closed=self._closed,
            senders_waiting=len(self._senders),
            receivers_waiting=len(self._receivers),
            sent=self._sent,
            received=self._received,
        )

    # Sending

    async def send(self, item: T) -> None:
        """Send an item, waiting in turn while the channel is paused.

        Raises `ChannelClosed`, or what it failed with, if it is closed before the item is in. When it raises, the item
        was not sent.
        """
        self._check_open()
        size = 1 if self._size_of is None else self._size_of(item)
        if self._paused or self._placed:
            await self._wait_for_place(size)
        else:
            self._reserve(size)
        self._put(item, size)

    def try_send(self, item: T) -> bool:
        """Send an item if that needs no waiting, and tell whether. Raises as `send` does if it is closed."""
        self._check_open()
        if self._paused or self._placed:
            return False
        size = 1 if self._size_of is None else self._size_of(item)
        self._reserve(size)
        self._put(item, size)
        return True

    def _check_open(self) -> None:
        if self._closed:
            raise self._end("the channel is closed: nothing can be sent any more")

    def _reserve(self, size: int) -> None:
        self._size += size
        self._paused = self._size >= self._high

    def _put(self, item: T, size: int) -> None:
        self._items.append((item, size))
        self._sent += 1
        self._wake_receivers()

    async def _wait_for_place(self, size: int) -> None:
        future: asyncio.Future[bool] = self._bound_loop().create_future()
        self._senders[future] = size
        try:
            await future
            self._check_open()
        except BaseException:
            self._senders.pop(future, None)
            if _was_served(future):
                self._give_up(size)
            raise
        finally:
            if _was_served(future):
                self._placed -= 1
                # a newcomer may have waited behind us although there was room
                self._wake_senders()

    def _give_up(self, size: int) -> None:
        self._size -= size
        self._wake_senders()

    def _wake_senders(self) -> None:
        if self._paused and self._size <= self._low:
            self._paused = False
        while self._senders and not self._paused:
            future, size = self._senders.popitem(last=False)
            if not future.done():
                self._placed += 1
                self._reserve(size)
                future.set_result(True)

    # Receiving

    async def receive(self) -> T:
        """The next item, waiting in turn until there is one.

        Raises `ChannelClosed`, or what it failed with, once it is closed and empty. When it raises, no item was taken.
        """
        in_turn = not self._items or self._promised > 0
        if in_turn:
            await self._wait_for_item()
        item, size = self._items.popleft()
        if in_turn:
            self._promised -= 1
            # a newcomer may have waited behind us although there was an item
            self._wake_receivers()
        self._received += 1
        self._size -= size
        if self._paused:
            self._wake_senders()
        if self._closed and not self._items:
            _end_all(self._receivers)
        return item

    def __aiter__(self) -> Channel[T]:
        return self

    async def __anext__(self) -> T:
        try:
            return await self.receive()
        except ChannelClosed as end:
            if end is self._failure:
                raise
            raise StopAsyncIteration from None

    async def _wait_for_item(self) -> None:
        if self._closed and not self._items:
            raise self._end()
        future: asyncio.Future[bool] = self._bound_loop().create_future()
        self._receivers[future] = None
        try:
            promised = await future
        except BaseException:
            self._receivers.pop(future, None)
            if _was_served(future):
                self._promised -= 1
                self._wake_receivers()
            raise
        if not promised:
            raise self._end()

    def _wake_receivers(self) -> None:
        while self._receivers and self._promised < len(self._items):
            future, _ = self._receivers.popitem(last=False)
            if not future.done():
                self._promised += 1
                future.set_result(True)

    # The end

    def _awaited_in(self, method: str) -> tuple[str, str]:
        """What task telemetry says of who waits here: kind and state."""
        return "channel", "send, paused" if method in {"send", "_wait_for_place"} else "receive, empty"

    def close(self) -> None:
        """Nothing can be sent from now on; who waits to send gets `ChannelClosed`. Receivers have what is inside."""
        if self._closed:
            return
        self._closed = True
        _end_all(self._senders)
        if not self._items:
            _end_all(self._receivers)

    def fail(self, problem: BaseException) -> None:
        """Close it, with `problem` in the place of the end: senders get it at once, receivers after what is inside."""
        if not self._closed:
            self._failure = problem
            self.close()

    def _end(self, words: str = "the channel is closed, and nothing is left in it") -> BaseException:
        return ChannelClosed(words) if self._failure is None else self._failure

    def _bound_loop(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        if loop is not self._loop:
            raise RuntimeError(f"{self!r} is bound to a different event loop")
        return loop


def _was_served(future: asyncio.Future[bool]) -> bool:
    """Whether it was woken for a place or an item, not for the end, and not cancelled before."""
    return future.done() and not future.cancelled() and future.result()


def _end_all(line: OrderedDict[asyncio.Future[bool], Any]) -> None:
    while line:
        future, _ = line.popitem(last=False)
        if not future.done():
            future.set_result(False)
