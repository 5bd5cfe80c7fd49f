"""A request's wait for a permit that ends when its client disconnects.

A server reports a disconnect only by `receive()`. So the request reads ahead while it waits, without another task: the
gate's answer interrupts the read as a timeout would.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from penstock.tasks.awaits.awaited import described_future, register_awaited

if TYPE_CHECKING:
    from penstock.pressure.admission.core import Waiter
    from penstock.pressure.admission.gate import Entry

__all__ = ["AHEAD_BYTES", "ReadAhead"]

T = TypeVar("T")
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]

# the most of a waiting request's body that is read ahead; the rest stays with the server
AHEAD_BYTES = 65536
DISCONNECTS = frozenset({"http.disconnect", "websocket.disconnect"})


class ReadAhead:
    """The `receive` of a request that had to wait: first the messages that were read ahead, then new ones."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._kept: deque[Message] = deque()

    async def __call__(self) -> Message:
        """Return the next message, for the application."""
        return self._kept.popleft() if self._kept else await self._receive()

    async def wait(self, entry: Entry, waiter: Waiter) -> bool:
        """Wait for the entry's permit; return False if the client disconnects before. Raises Overloaded when shed.

        A disconnect comes after the request's body, so the body is read, up to `AHEAD_BYTES`.
        """
        read_bytes = 0
        while not waiter.done() and read_bytes <= AHEAD_BYTES:
            message = await self._next(entry, waiter)
            if message is None:
                break
            if message["type"] in DISCONNECTS:
                entry.abandon()
                return False
            self._kept.append(message)
            read_bytes += len(message.get("body", b""))
        await waiter
        return True

    async def _next(self, entry: Entry, waiter: Waiter) -> Message | None:
        try:
            return await _unless_done(waiter, self._receive)
        except BaseException:
            # cancelled, or the server's own failure: the place in the queue is free for another request
            entry.abandon()
            raise


async def _unless_done(waiter: Waiter, receive: Callable[[], Awaitable[T]]) -> T | None:
    """Return the result of `receive()`. Cancel it and return None if the waiter is done before."""
    task = asyncio.current_task()
    if task is None:
        return None
    others = task.cancelling()
    interrupted = False

    def interrupt(_: object) -> None:
        nonlocal interrupted
        if not over:
            interrupted = True
            task.cancel()

    over = False
    waiter.add_done_callback(interrupt)
    try:
        return await receive()
    except asyncio.CancelledError:
        # as in asyncio.timeout(): a cancellation from elsewhere at the same time goes on
        if interrupted and task.cancelling() <= others + 1:
            return None
        raise
    finally:
        over = True
        waiter.remove_done_callback(interrupt)
        if interrupted:
            task.uncancel()


def _gate_of(waiter: Any) -> str:
    found = described_future(waiter)
    return "a gate" if found is None else found.text


# such a task waits at a gate, although it awaits the server's `receive`
register_awaited(_unless_done, "gate", _gate_of, throughout=True)
