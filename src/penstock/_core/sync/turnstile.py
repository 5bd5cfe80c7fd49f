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

__all__ = ["Turn", "Turnstile"]


class Turn(Waiting):
    """One that wants a permit of its owner: a turnstile. It stands in the line from when it is awaited."""

    def __init__(self) -> None:
        Waiting.__init__(self)
        self.is_fresh = True
        self.before: Turn | None = None
        self.after: Turn | None = None

    def begins(self) -> bool:
        """Take a permit, or join the line; RuntimeError if that is in another loop than before."""
        turnstile: Any = self.owner
        if turnstile.take():
            return False
        self.loop = get_running_loop()
        if self.loop is not turnstile._loop:
            self.loop = turnstile._get_loop()
        turnstile.join(self)
        return True

    def resumed(self) -> None:
        """Its task runs, with its permit."""
        turnstile: Turnstile = self.owner
        turnstile._granted -= 1
        turnstile.let_in()

    def gave_up(self) -> None:
        """It leaves the line by itself."""
        turnstile: Turnstile = self.owner
        turnstile.part(self)

    def passed_on(self) -> None:
        """It has a permit and cannot use it: the next one has it."""
        turnstile: Turnstile = self.owner
        turnstile._granted -= 1
        turnstile._value += 1

    def ended(self) -> None:
        """It is gone, and its task has been told."""
        turnstile: Turnstile = self.owner
        turnstile.let_in()


def new_turn(turnstile: Turnstile) -> Turn:
    """One that has not been awaited."""
    turn = Turn()
    turn.owner = turnstile
    return turn


class Turnstile:
    """Permits to be had (`_value`, never above `_bound_value`), and how many were handed to tasks that have not run.

    A subclass has `_loop` and `_get_loop()`, as what of asyncio's belongs to a loop has them. `_inside` are those that
    wait, are woken or cancelled, and have not run. Ownership: the line owns those in it.
    """

    def __init__(self, value: int, bound: int) -> None:
        self._value = value
        self._bound_value = bound
        self._granted = self._inside = 0
        self.first: Turn | None = None
        self.last: Turn | None = None

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
        return DONE if self.take() else new_turn(self)

    def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, traceback: TracebackType | None
    ) -> Done:
        self.give()
        return DONE

    def _turn(self) -> Turn:
        """What is to be awaited for a permit."""
        return new_turn(self)

    def _in_line(self) -> list[Turn]:
        """Those that wait, first come first."""
        found = []
        turn = self.first
        while turn is not None:
            found.append(turn)
            turn = turn.after
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
        turn = self.first
        if turn is None:
            raise LookupError("nobody waits for a permit")
        self.part(turn)
        self._value -= 1
        self._granted += 1
        turn.grant()

    def let_in(self) -> None:
        """One is no longer inside. A newcomer may have waited behind it although there was a permit."""
        self._inside -= 1
        while self._value > 0 and self.first is not None:
            self.hand_on()

    def join(self, turn: Turn) -> None:
        """Put it at the end of the line."""
        self._inside += 1
        turn.before = self.last
        if self.last is None:
            self.first = turn
        else:
            self.last.after = turn
        self.last = turn

    def part(self, turn: Turn) -> None:
        """Take it out of the line, wherever it stands."""
        before, after = turn.before, turn.after
        if before is None:
            self.first = after
        else:
            before.after = after
        if after is None:
            self.last = before
        else:
            after.before = before
        turn.before = turn.after = None
