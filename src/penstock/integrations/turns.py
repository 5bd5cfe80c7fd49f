"""A request's way into a gate, taken step by step: one can look at something else while it waits, without a task.

What a gate gives to be awaited waits for one thing at a time, so it may be stepped by hand. What a server gives may do
anything, and is awaited as it should be: the gate's answer interrupts that wait as a timeout would.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from penstock.errors import Overloaded
from penstock.tasks.awaits import awaited as waits

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from penstock.pressure.admission.gate import Gate

__all__ = ["EarlyTurn", "Entry", "Turn", "unless"]

T = TypeVar("T")


class Entry(Protocol):
    """What `gate.entry()` gives, as far as it is used here."""

    def enter(self) -> Awaitable[object]:
        """Wait for a permit. Raises Overloaded."""

    def leave(self) -> None:
        """Give the permit back."""


class Turn:
    """An entry that has been asked for: it has its permit already, or waits for `waiter`.

    Awaiting it waits for the permit; it must then be given back by `leave`, which may be called again. Making or
    awaiting one raises Overloaded.
    """

    __slots__ = ("_entry", "_steps", "waiter")

    def __init__(self, entry: Entry) -> None:
        self._entry: Any = None
        # the future that the permit depends on; None when there is nothing to wait for
        self.waiter: Any = None
        self._steps = entry.enter().__await__()
        self._entry = entry
        self._step()

    def __await__(self) -> Generator[Any, Any, None]:
        while self.waiter is not None:
            if not self.waiter.done():
                self.waiter._asyncio_future_blocking = True
                try:
                    yield self.waiter
                except BaseException as error:
                    self._throw(error)
                    raise
            self._step()

    def leave(self) -> None:
        """Give the permit back, once."""
        entry, self._entry = self._entry, None
        if entry is not None:
            entry.leave()

    def become_stream(self, gate: Gate) -> bool:
        """Give the permit back, and count as one of the gate's streams until `leave`; False if there are too many."""
        stream = gate.stream(self._entry)
        if stream is not None:
            self._entry = stream
        return stream is not None

    def drop(self) -> None:
        """Nobody wants it any more: stop waiting, or give the permit back if it has just come."""
        if self.waiter is not None:
            self._throw(asyncio.CancelledError())
        else:
            self.leave()

    def _step(self) -> None:
        try:
            self.waiter = next(self._steps)
            self.waiter._asyncio_future_blocking = False
        except StopIteration:
            self.waiter = None
        except BaseException:
            self.waiter = self._entry = None
            raise

    def _throw(self, error: BaseException) -> None:
        """What the task that waits would be told; the gate's own code then gives up the place in the queue."""
        waiter, self.waiter = self.waiter, None
        waiter.cancel()
        try:
            self._steps.throw(error)
        except StopIteration:
            self.leave()
        except (asyncio.CancelledError, GeneratorExit, Overloaded):
            self._entry = None


class EarlyTurn(Turn):
    """One that is asked for before the task that will await it: if that is cancelled unstarted, nobody leaves."""

    __slots__ = ()

    def __del__(self) -> None:
        self.drop()


async def unless(waiter: Any, receive: Callable[[], Awaitable[T]]) -> T | None:
    """What `receive()` gives, or None if the waiter is done before that; `receive()` is then cancelled."""
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
        # as in asyncio.timeout(): a cancellation from elsewhere that came as well goes on
        if interrupted and task.cancelling() <= others + 1:
            return None
        raise
    finally:
        over = True
        waiter.remove_done_callback(interrupt)
        if interrupted:
            task.uncancel()


def _gate_of(waiter: Any) -> str:
    found = waits.described_future(waiter)
    return "a gate" if found is None else found.text


# whatever a server has it await meanwhile, such a task waits at a gate
waits.register_awaited(unless, "gate", _gate_of, throughout=True)
