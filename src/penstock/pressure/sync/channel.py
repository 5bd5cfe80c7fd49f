"""`Channel`: a bounded channel for items between tasks, with two watermarks and an end.

A task never hands an item or a place to another task. A waiter is woken and takes the item itself when it runs. A
waiter that is cancelled before that has taken nothing, and the next one is woken. So no item is lost or duplicated.
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
    """The counts of a channel.

    `queued` is the count of items inside and `size` the sum of their sizes, which is their count without a size
    function. `high` and `low` are the watermarks, in the same unit as `size`. `paused` is true while senders wait until
    `size` has fallen to `low`. `senders_waiting` and `receivers_waiting` are counts of waiting tasks; `sent` and
    `received` are counts of items since the start.
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
    """A bounded first-in, first-out queue from any number of senders to any number of receivers.

    Each item goes to one receiver. Once `high` is reached, `send()` waits until the channel has fallen to `low`, so
    that a sender works in batches. One item may exceed `high`, so that an item larger than `high` can be sent. Waiters
    are served in the order of their arrival. After `close()`, receivers get the items inside and then the end. The
    first wait binds the channel to the running loop; it must not be used from other threads.

    `high` and `low` are sums of sizes; `low` is half of `high` unless given. `size(item)` returns the size of an item,
    in bytes for instance; without it each item has size 1. Raises ValueError unless 0 <= `low` < `high`.
    """

    def __init__(self, high: int, low: int | None = None, *, size: Callable[[T], int] | None = None) -> None:
        self._high = high
        self._low = high // 2 if low is None else low
        if not 0 <= self._low < high:
            raise ValueError(f"watermarks high = {high}, low = {self._low}: must be 0 <= low < high")
        self._size_of = size
        self._items: deque[tuple[T, int]] = deque()
        # the sizes of the items inside and of the items that woken senders are about to put
        self._size = 0
        self._paused = False
        # waiting senders with the sizes of their items; a cancelled one may stay until its task runs
        self._senders: OrderedDict[asyncio.Future[bool], int] = OrderedDict()
        self._receivers: OrderedDict[asyncio.Future[bool], None] = OrderedDict()
        # counts of senders and receivers that were woken and have not run since
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
        """Whether the channel is closed for sending."""
        return self._closed

    def statistics(self) -> ChannelStatistics:
        """Return the present counts."""
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
        """Send an item; wait, in order of arrival, while the channel is paused.

        Raises `ChannelClosed`, or the exception given to `fail()`, if the channel is closed before the item is inside.
        If this raises, the item was not sent.
        """
        self._check_open()
        size = 1 if self._size_of is None else self._size_of(item)
        if self._paused or self._placed:
            await self._wait_for_place(size)
        else:
            self._reserve(size)
        self._put(item, size)

    def try_send(self, item: T) -> bool:
        """Send an item if that needs no wait. Return whether it was sent.

        Raises `ChannelClosed`, or the exception given to `fail()`, if the channel is closed.
        """
        self._check_open()
        if self._paused or self._placed:
            return False
        size = 1 if self._size_of is None else self._size_of(item)
        self._reserve(size)
        self._put(item, size)
        return True

    def _check_open(self) -> None:
        if self._closed:
            raise self._end("the channel is closed for sending")

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
                # a sender that came meanwhile may wait although there is room
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
        """Return the next item; wait, in order of arrival, until there is one.

        Raises `ChannelClosed`, or the exception given to `fail()`, once the channel is closed and empty. If this
        raises, no item was taken.
        """
        waited = not self._items or self._promised > 0
        if waited:
            await self._wait_for_item()
        item, size = self._items.popleft()
        if waited:
            self._promised -= 1
            # a receiver that came meanwhile may wait although there is an item
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
        """Return kind and state for task telemetry, which shows them for a waiting task."""
        return "channel", "send, paused" if method in {"send", "_wait_for_place"} else "receive, empty"

    def close(self) -> None:
        """Close the channel for sending. Waiting senders get `ChannelClosed`; receivers get the items inside."""
        if self._closed:
            return
        self._closed = True
        _end_all(self._senders)
        if not self._items:
            _end_all(self._receivers)

    def fail(self, problem: BaseException) -> None:
        """Close the channel with an exception: senders get it at once, receivers after the last item inside.

        `problem` is raised in place of `ChannelClosed`. A channel that is closed already does not change.
        """
        if not self._closed:
            self._failure = problem
            self.close()

    def _end(self, message: str = "the channel is closed and empty") -> BaseException:
        return ChannelClosed(message) if self._failure is None else self._failure

    def _bound_loop(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        if loop is not self._loop:
            raise RuntimeError(f"{self!r} is bound to a different event loop")
        return loop


def _was_served(future: asyncio.Future[bool]) -> bool:
    """Return whether the waiter was woken for a place or an item, neither cancelled nor ended by a close."""
    return future.done() and not future.cancelled() and future.result()


def _end_all(waiters: OrderedDict[asyncio.Future[bool], Any]) -> None:
    while waiters:
        future, _ = waiters.popitem(last=False)
        if not future.done():
            future.set_result(False)
