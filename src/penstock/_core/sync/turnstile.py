# cython: annotation_typing=False, nonecheck=True
"""The permits of a semaphore and its queue: without a coroutine if a permit is free, else handed to the first waiter.

Native where it is built (`turnstile.pxd` has the types), this very source elsewhere. Every operation is O(1), a
cancellation included: the queue holds only waiters that still wait. The event loop is known to the subclass alone.
"""

from __future__ import annotations

from asyncio import get_running_loop
from typing import TYPE_CHECKING, Any

# relative, so that the plain source finds its plain parts where native ones are built too
from .waiting import DONE, Done, Waiter

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from types import TracebackType

__all__ = ["SemaphoreWaiter", "Turnstile"]


class SemaphoreWaiter(Waiter):
    """A waiter for a permit of its owner, a turnstile. It joins the queue when it is first awaited."""

    def __init__(self) -> None:
        Waiter.__init__(self)
        self.is_unstarted = True
        self.before: SemaphoreWaiter | None = None
        self.after: SemaphoreWaiter | None = None

    def start(self) -> bool:
        """Take a permit or join the queue; return whether it waits. RuntimeError in another loop than before."""
        turnstile: Any = self.owner
        if turnstile.take():
            return False
        self.loop = get_running_loop()
        if self.loop is not turnstile._loop:
            self.loop = turnstile._get_loop()
        turnstile.append(self)
        return True

    def admitted(self) -> None:
        """Account for its task, which runs with its permit."""
        turnstile: Turnstile = self.owner
        turnstile._granted -= 1
        turnstile.waiter_finished()

    def abandoned(self) -> None:
        """Leave the queue without a permit."""
        turnstile: Turnstile = self.owner
        turnstile.remove(self)

    def forfeited(self) -> None:
        """Put back the permit that its task cannot use."""
        turnstile: Turnstile = self.owner
        turnstile._granted -= 1
        turnstile._value += 1

    def finished(self) -> None:
        """Account for the end of its wait without a permit, of which its task knows."""
        turnstile: Turnstile = self.owner
        turnstile.waiter_finished()


def new_waiter(turnstile: Turnstile) -> SemaphoreWaiter:
    """Return a waiter that has not been awaited."""
    waiter = SemaphoreWaiter()
    waiter.owner = turnstile
    return waiter


class Turnstile:
    """Free permits (`_value`, at most `_bound_value`), and the number granted to tasks that have not run (`_granted`).

    A subclass has `_loop` and `_get_loop()`, as asyncio's objects of one loop have. `_unfinished` counts the waiters
    whose tasks have not run since: they wait, or are granted or cancelled. Ownership: the queue owns its waiters.
    """

    def __init__(self, value: int, bound: int) -> None:
        self._value = value
        self._bound_value = bound
        self._granted = self._unfinished = 0
        self.first: SemaphoreWaiter | None = None
        self.last: SemaphoreWaiter | None = None

    def locked(self) -> bool:
        """Return whether `acquire()` would wait: no permit is free, or other tasks wait."""
        return self._value <= 0 or self._granted > 0 or self.first is not None

    def try_acquire(self) -> bool:
        """Take a permit if that needs no waiting, and return whether it did. It overtakes no waiter.

        asyncio's semaphore has no such method.
        """
        return self.take()

    def take(self) -> bool:
        """Take a permit if one is free and no task waits; return whether it did."""
        if self._value > 0 and self._granted == 0 and self.first is None:
            self._value -= 1
            return True
        return False

    def release(self) -> None:
        """Give a permit back; the first waiter gets it. Raises ValueError beyond the bound of a bounded semaphore."""
        self.give_back()

    def __aenter__(self) -> Awaitable[None]:
        return DONE if self.take() else new_waiter(self)

    def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, traceback: TracebackType | None
    ) -> Done:
        self.give_back()
        return DONE

    def _new_waiter(self) -> SemaphoreWaiter:
        """Return an awaitable of a permit."""
        return new_waiter(self)

    def _queued_waiters(self) -> list[SemaphoreWaiter]:
        """Return the waiters in the queue, oldest first."""
        found = []
        waiter = self.first
        while waiter is not None:
            found.append(waiter)
            waiter = waiter.after
        return found

    def give_back(self) -> None:
        """Give a permit back, as `release` does."""
        if self._value >= self._bound_value:
            raise ValueError("BoundedSemaphore released too many times")
        self._value += 1
        if self.first is not None:
            self.grant_next()

    def grant_next(self) -> None:
        """Grant a free permit to the first waiter. Raise LookupError without one."""
        waiter = self.first
        if waiter is None:
            raise LookupError("no task waits for a permit")
        self.remove(waiter)
        self._value -= 1
        self._granted += 1
        waiter.grant()

    def waiter_finished(self) -> None:
        """Account for a finished waiter. Tasks that came later may have waited behind it beside a free permit."""
        self._unfinished -= 1
        while self._value > 0 and self.first is not None:
            self.grant_next()

    def append(self, waiter: SemaphoreWaiter) -> None:
        """Put a waiter at the end of the queue."""
        self._unfinished += 1
        waiter.before = self.last
        if self.last is None:
            self.first = waiter
        else:
            self.last.after = waiter
        self.last = waiter

    def remove(self, waiter: SemaphoreWaiter) -> None:
        """Take a waiter out of the queue, wherever it stands."""
        before, after = waiter.before, waiter.after
        if before is None:
            self.first = after
        else:
            before.after = after
        if after is None:
            self.last = before
        else:
            after.before = before
        waiter.before = waiter.after = None
