# cython: annotation_typing=False, nonecheck=True
"""Awaitables of gates, semaphores and limiters: `Waiter`, which a task takes for a future, and `DONE`, which is done.

Native where it is built (`waiting.pxd` has the types), this very source elsewhere. A waiter knows no queue and no
permits: its owner decides.
"""

from __future__ import annotations

from asyncio import CancelledError, InvalidStateError
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

__all__ = ["DONE", "Done", "Waiter"]

# CANCELLED: out of the queue, and its task does not know yet; FINISHED: its task knows
WAITING, GRANTED, SHED, CANCELLED, ADMITTED, FINISHED = 0, 1, 2, 3, 4, 5
STATES = ("waiting", "granted", "shed", "cancelled", "admitted", "finished")


class Done:
    """An awaitable that is done: `await` returns at once."""

    def __await__(self) -> Any:
        return self

    def __iter__(self) -> Done:
        return self

    def __next__(self) -> Any:
        raise StopIteration


DONE = Done()


class Waiter:
    """A waiting task's place, and the awaitable that the task takes for a future: a wait makes no other object.

    An unstarted waiter is in no queue until it is awaited: `owner._start(waiter)` then returns whether it waits. The
    owner is notified when its task runs with a permit (`_admitted`), when it leaves the queue by itself (`_abandoned`),
    and when it has a permit that its task cannot use (`_forfeited`); `_shed_error` makes the exception of a waiter that
    is shed. Until it is awaited, asyncio takes it for any awaitable: `wait_for()` makes a task for it.
    Ownership: the owner has it while it waits; then the callback that resumes its task.
    """

    # set by the object that makes it
    owner: Any
    loop: Any
    # the borrower, or the fairness key
    key: Hashable

    def __init__(self) -> None:
        self.state = WAITING
        self.reason = 0
        # it joins the queue when it is awaited, not when it is made
        self.is_unstarted = False
        self.blocking: bool | None = None
        self.callback: Callable[[Any], object] | None = None
        self.context: Any = None
        self.message: object = None

    # Hooks, by default the owner's methods.

    def start(self) -> bool:
        """Join the queue or take a permit; return whether it waits. The first await of an unstarted waiter calls it."""
        return bool(self.owner._start(self))

    def admitted(self) -> None:
        """Account for its task, which runs with its permit."""
        self.owner._admitted(self)

    def abandoned(self) -> None:
        """Leave the queue without a permit."""
        self.owner._abandoned(self)

    def forfeited(self) -> None:
        """Put back the permit that its task cannot use."""
        self.owner._forfeited(self)

    def finished(self) -> None:
        """Account for the end of its wait without a permit, of which its task knows."""

    # Called by the owner.

    def grant(self) -> None:
        """Give it a permit, and schedule its task's next step."""
        self.state = GRANTED
        self.wake()

    def shed(self, reason: int) -> None:
        """Shed it with the reason of this number, and schedule its task's next step."""
        self.reason = reason
        self.state = SHED
        self.wake()

    def wake(self) -> None:
        """Schedule its task's next step, in the loop's next turn."""
        if self.callback is not None:
            self.loop.call_soon(self.callback, self, context=self.context)
            self.callback = self.context = None

    # The protocol of `await`.

    def __await__(self) -> Waiter:
        return self

    def __iter__(self) -> Waiter:
        return self

    def __next__(self) -> Waiter:
        if self.is_unstarted:
            if not self.start():
                self.state = ADMITTED
            self.is_unstarted = False
            if self.state == ADMITTED:
                raise StopIteration
        if self.state == WAITING:
            # not only where the callback is added: a task would not survive that
            if self.callback is not None:
                raise RuntimeError("this waiter is awaited by another task already")
            self.blocking = True
            return self
        if self.state == GRANTED:
            self.state = ADMITTED
            self.admitted()
            raise StopIteration
        if self.state == SHED:
            raise self.owner._shed_error(self)
        if self.state == ADMITTED:
            raise RuntimeError("this waiter was awaited before, and has its permit")
        raise self.cancellation()

    def send(self, value: object) -> Waiter:
        """Step its task: go on waiting, stop (it has its permit), or raise the reason that it has none."""
        return next(self)

    def cancellation(self) -> CancelledError:
        """Return the exception of a task that was cancelled while it waited."""
        return CancelledError() if self.message is None else CancelledError(self.message)

    def throw(self, kind: Any, value: Any = None, traceback: Any = None) -> Waiter:
        """Leave the queue or put the permit back, and raise the exception: its task was cancelled, as a rule."""
        self.abandon()
        raise kind if value is None else value

    def close(self) -> None:
        """Leave the queue or put the permit back: its coroutine is closed."""
        self.abandon()

    def abandon(self) -> None:
        """Leave the queue or put the permit back. It does nothing once the task has its permit or its exception."""
        state = self.state
        if self.is_unstarted:
            return
        if state in (WAITING, GRANTED, CANCELLED):
            self.state = FINISHED
            if state == GRANTED:
                self.forfeited()
            elif state == WAITING:
                self.abandoned()
            self.finished()

    # The protocol of a task's future.

    @property
    def _asyncio_future_blocking(self) -> bool | None:
        return self.blocking

    @_asyncio_future_blocking.setter
    def _asyncio_future_blocking(self, value: bool) -> None:
        self.blocking = value

    def get_loop(self) -> Any:
        """Return the loop it waits in."""
        return self.loop

    def add_done_callback(self, callback: Callable[[Any], object], *, context: Any = None) -> None:
        """Have the loop call `callback(self)` when the wait ends. There is room for one: its task's.

        RuntimeError if it has one.
        """
        if self.state != WAITING:
            self.loop.call_soon(callback, self, context=context)
            return
        if self.callback is not None:
            raise RuntimeError("this waiter is awaited by another task already")
        self.callback = callback
        self.context = context

    def remove_done_callback(self, callback: Callable[[Any], object]) -> int:
        """Remove the callback; return how many there were, 0 or 1."""
        if self.callback != callback:
            return 0
        self.callback = self.context = None
        return 1

    def cancel(self, msg: object = None) -> bool:
        """Leave the queue now, as its task is cancelled. Return False if it was granted or shed before."""
        if self.state != WAITING or self.is_unstarted:
            return False
        self.message = msg
        self.state = CANCELLED
        self.abandoned()
        self.wake()
        return True

    def cancelled(self) -> bool:
        """Return whether it left the queue by itself."""
        return self.state == CANCELLED or self.state == FINISHED

    def done(self) -> bool:
        """Return whether the wait is over."""
        return self.state != WAITING

    def result(self) -> None:
        """Return None, or raise its cancellation. A waiter that was shed raises where it is awaited."""
        if self.cancelled():
            raise self.cancellation()
        if not self.done():
            raise InvalidStateError("the wait is not over")

    def exception(self) -> None:
        """Do as `result`: no exception is stored."""
        self.result()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {STATES[self.state]} at {self.owner!r}>"
