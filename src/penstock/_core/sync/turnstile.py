# cython: annotation_typing=False, nonecheck=True
"""A semaphore's permits: taken and given back without a coroutine where nobody waits, else handed to the first.

Native where it is built (`turnstile.pxd` has the types), this very source elsewhere. Every operation is O(1), a
cancellation among them: the line has those alone that still wait. Knows no loop but by its subclass.
"""

from __future__ import annotations

from asyncio import get_running_loop
from typing import TYPE_CHECKING, Any

# relative, so that the plain source finds its plain parts where native ones are built too
from .waiting import DONE, Done, Waiting

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from types import TracebackType

__all__ = ["SemaphoreWaiter", "Turnstile"]


class SemaphoreWaiter(Waiting):
    """One that wants a permit of its owner: a turnstile. It stands in the line from when it is awaited."""

    def __init__(self) -> None:
        Waiting.__init__(self)
        self.is_fresh = True
        self.before: SemaphoreWaiter | None = None
        self.after: SemaphoreWaiter | None = None

    def begins(self) -> bool:
        """Take a permit, or link the line; RuntimeError if that is in another loop than before."""
        turnstile: Any = self.owner
        if turnstile.take():
            return False
        self.loop = get_running_loop()
        if self.loop is not turnstile._loop:
            self.loop = turnstile._get_loop()
        turnstile.link(self)
        return True

    def resumed(self) -> None:
        """Its task runs, with its permit."""
        turnstile: Turnstile = self.owner
        turnstile._granted -= 1
        turnstile.leave_inside()

    def gave_up(self) -> None:
        """It leaves the line by itself."""
        turnstile: Turnstile = self.owner
        turnstile.unlink(self)

    def passed_on(self) -> None:
        """It has a permit and cannot use it: the next one has it."""
        turnstile: Turnstile = self.owner
        turnstile._granted -= 1
        turnstile._value += 1

    def ended(self) -> None:
        """It is gone, and its task has been told."""
        turnstile: Turnstile = self.owner
        turnstile.leave_inside()


def new_waiter(turnstile: Turnstile) -> SemaphoreWaiter:
    """One that has not been awaited."""
    waiter = SemaphoreWaiter()
    waiter.owner = turnstile
    return waiter


class Turnstile:
    """Permits to be had (`_value`, never above `_bound_value`), and how many were handed to tasks that have not run.

    A subclass has `_loop` and `_get_loop()`, as what of asyncio's belongs to a loop has them. `_inside` are those that
    wait, are woken or cancelled, and have not run. Ownership: the line owns those in it.
    """

    def __init__(self, value: int, bound: int) -> None:
        self._value = value
        self._bound_value = bound
        self._granted = self._inside = 0
        self.first: SemaphoreWaiter | None = None
        self.last: SemaphoreWaiter | None = None

    def locked(self) -> bool:
        """Whether `acquire()` would wait: no permit is left, or others are before."""
        return self._value <= 0 or self._granted > 0 or self.first is not None

    def try_acquire(self) -> bool:
        """Take a permit if that needs no waiting, and tell whether. Never overtakes anyone; not in asyncio's."""
        return self.take()

    def take(self) -> bool:
        """Take a permit if there is one and nobody is before; whether it was taken."""
        if self._value > 0 and self._granted == 0 and self.first is None:
            self._value -= 1
            return True
        return False

    def release(self) -> None:
        """Give a permit back; the first that waits gets it. ValueError beyond the bound, if there is one."""
        self.give()

    def __aenter__(self) -> Awaitable[None]:
        return DONE if self.take() else new_waiter(self)

    def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, traceback: TracebackType | None
    ) -> Done:
        self.give()
        return DONE

    def _waiter(self) -> SemaphoreWaiter:
        """What is to be awaited for a permit."""
        return new_waiter(self)

    def _queued_waiters(self) -> list[SemaphoreWaiter]:
        """Those that wait, first come first."""
        found = []
        waiter = self.first
        while waiter is not None:
            found.append(waiter)
            waiter = waiter.after
        return found

    def give(self) -> None:
        """A permit comes back."""
        if self._value >= self._bound_value:
            raise ValueError("BoundedSemaphore released too many times")
        self._value += 1
        if self.first is not None:
            self.hand_on()

    def hand_on(self) -> None:
        """The first that waits has a permit that there is."""
        waiter = self.first
        if waiter is None:
            raise LookupError("nobody waits for a permit")
        self.unlink(waiter)
        self._value -= 1
        self._granted += 1
        waiter.grant()

    def leave_inside(self) -> None:
        """One is no longer inside. A newcomer may have waited behind it although there was a permit."""
        self._inside -= 1
        while self._value > 0 and self.first is not None:
            self.hand_on()

    def link(self, waiter: SemaphoreWaiter) -> None:
        """Put it at the end of the line."""
        self._inside += 1
        waiter.before = self.last
        if self.last is None:
            self.first = waiter
        else:
            self.last.after = waiter
        self.last = waiter

    def unlink(self, waiter: SemaphoreWaiter) -> None:
        """Take it out of the line, wherever it stands."""
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
