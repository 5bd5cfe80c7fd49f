# cython: annotation_typing=False, nonecheck=True
"""What a task awaits of ours: one that waits, which it takes for a future; and what it awaits where it need not wait.

Native where it is built (`waiting.pxd` has the types), this very source elsewhere. Knows no queue and no permits: who
owns a waiter decides.
"""

from __future__ import annotations

from asyncio import CancelledError, InvalidStateError
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

__all__ = ["DONE", "Done", "Waiting"]

# GONE: it was cancelled; OVER: it is gone, and its task knows
WAITING, GRANTED, SHED, GONE, INSIDE, OVER = 0, 1, 2, 3, 4, 5
STATES = ("waiting", "granted", "refused", "gone", "inside", "over")


class Done:
    """An awaitable that is done: `await` goes on at once."""

    def __await__(self) -> Any:
        return self

    def __iter__(self) -> Done:
        return self

    def __next__(self) -> Any:
        raise StopIteration


DONE = Done()


class Waiting:
    """One that waits, and what it awaits: a task takes it for a future, so that waiting makes no other object.

    A fresh one is in no queue before it is awaited: then its owner says whether it waits (`_begins`), or is inside. Its
    owner is told when it is resumed with a permit (`_resumed`), leaves by itself (`_gave_up`) or cannot use its
    permit (`_passed_on`), and makes the exception of a refused one (`_refusal`). Until it is awaited, asyncio takes it
    for any awaitable: `wait_for()` makes a task for it.
    Ownership: while it waits its owner has it; then whoever resumes its task.
    """

    # set by whoever makes it; whom it waits for, if the owner wants to know
    owner: Any
    loop: Any
    key: Hashable

    def __init__(self) -> None:
        self.state = WAITING
        self.reason = 0
        # it begins when it is awaited, and not when it is made
        self.is_fresh = False
        self.blocking: bool | None = None
        self.callback: Callable[[Any], object] | None = None
        self.context: Any = None
        self.message: object = None

    # What a subclass may do otherwise, without going through the owner.

    def begins(self) -> bool:
        """A fresh one is awaited: whether it waits now, and is not inside at once."""
        return bool(self.owner._begins(self))

    def resumed(self) -> None:
        """Its task runs, with its permit."""
        self.owner._resumed(self)

    def gave_up(self) -> None:
        """It leaves the queue by itself."""
        self.owner._gave_up(self)

    def passed_on(self) -> None:
        """It has a permit and cannot use it."""
        self.owner._passed_on(self)

    def ended(self) -> None:
        """It is gone, and its task has been told."""

    # What the owner does with it.

    def grant(self) -> None:
        """It has a permit: its task runs in the next turn."""
        self.state = GRANTED
        self.wake()

    def shed(self, reason: int) -> None:
        """It is refused: its task runs in the next turn."""
        self.reason = reason
        self.state = SHED
        self.wake()

    def wake(self) -> None:
        """Have its task run in the next turn."""
        if self.callback is not None:
            self.loop.call_soon(self.callback, self, context=self.context)
            self.callback = self.context = None

    # What `await` asks of it.

    def __await__(self) -> Waiting:
        return self

    def __iter__(self) -> Waiting:
        return self

    def __next__(self) -> Waiting:
        if self.is_fresh:
            if not self.begins():
                self.state = INSIDE
            self.is_fresh = False
            if self.state == INSIDE:
                raise StopIteration
        if self.state == WAITING:
            # not only where the callback is added: a task would not survive that
            if self.callback is not None:
                raise RuntimeError("what waits here is awaited by one task")
            self.blocking = True
            return self
        if self.state == GRANTED:
            self.state = INSIDE
            self.resumed()
            raise StopIteration
        if self.state == SHED:
            raise self.owner._refusal(self)
        if self.state == INSIDE:
            raise RuntimeError("it has been awaited already, and is inside")
        raise self.cancellation()

    def send(self, value: object) -> Waiting:
        """A step of its task: waits on, ends (it is inside), or raises why it is not."""
        return next(self)

    def cancellation(self) -> CancelledError:
        """The exception of a task that was cancelled while it waited here."""
        return CancelledError() if self.message is None else CancelledError(self.message)

    def throw(self, kind: Any, value: Any = None, traceback: Any = None) -> Waiting:
        """An exception comes to its task, a cancellation above all: it gives up its place or its permit."""
        self.give_up()
        raise kind if value is None else value

    def close(self) -> None:
        """Its task is destroyed: it gives up its place or its permit."""
        self.give_up()

    def give_up(self) -> None:
        """Leave the queue, or pass the permit on; it is over."""
        state = self.state
        if self.is_fresh:
            return
        if state in (WAITING, GRANTED, GONE):
            self.state = OVER
            if state == GRANTED:
                self.passed_on()
            elif state == WAITING:
                self.gave_up()
            self.ended()

    # What a task asks of its future.

    @property
    def _asyncio_future_blocking(self) -> bool | None:
        return self.blocking

    @_asyncio_future_blocking.setter
    def _asyncio_future_blocking(self, value: bool) -> None:
        self.blocking = value

    def get_loop(self) -> Any:
        """The loop it waits in."""
        return self.loop

    def add_done_callback(self, callback: Callable[[Any], object], *, context: Any = None) -> None:
        """Have `callback(self)` called when it waits no longer. There is room for one: its task's."""
        if self.state != WAITING:
            self.loop.call_soon(callback, self, context=context)
            return
        if self.callback is not None:
            raise RuntimeError("what waits here is awaited by one task")
        self.callback = callback
        self.context = context

    def remove_done_callback(self, callback: Callable[[Any], object]) -> int:
        """Forget the callback; how many there were."""
        if self.callback != callback:
            return 0
        self.callback = self.context = None
        return 1

    def cancel(self, msg: object = None) -> bool:
        """Its task is cancelled: it leaves the queue now. False if it has been granted or refused already."""
        if self.state != WAITING or self.is_fresh:
            return False
        self.message = msg
        self.state = GONE
        self.gave_up()
        self.wake()
        return True

    def cancelled(self) -> bool:
        """Whether it left the queue by itself."""
        return self.state == GONE or self.state == OVER

    def done(self) -> bool:
        """Whether it waits no longer."""
        return self.state != WAITING

    def result(self) -> None:
        """None, or its cancellation; why it was refused is raised where it is awaited."""
        if self.cancelled():
            raise self.cancellation()
        if not self.done():
            raise InvalidStateError("it still waits")

    def exception(self) -> None:
        """As `result`: no exception is kept."""
        self.result()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {STATES[self.state]} at {self.owner!r}>"
