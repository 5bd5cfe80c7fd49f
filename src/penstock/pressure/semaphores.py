"""`Semaphore` and `BoundedSemaphore`: asyncio's, with every wait, wake-up and cancellation in O(1).

asyncio keeps those it has woken in the line until they run, and looks past all of them for the next one; it searches
the line again for each that is cancelled: both are O(n) each, in the moment of most load. Here the line holds only
those that still wait. Knows no gate and no limit that moves.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any, Literal

from penstock.pressure.line import Line
from penstock.pressure.turnstile import Turnstile

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["BoundedSemaphore", "Semaphore"]

# more permits than there will ever be
UNBOUNDED = sys.maxsize


class Semaphore(Turnstile, asyncio.Semaphore):  # type: ignore[misc]
    """A counter of permits: `acquire()` takes one and waits for it in turn, `release()` gives one back.

    It is an `asyncio.Semaphore` in all that can be seen from outside, on every Python as 3.13 has it: who comes first
    is served first, and a permit that was handed to a waiter whose task is then cancelled goes to the next one. Use it
    as `async with semaphore`. The first wait binds it to the running loop. Its line is not bounded: `Gate` is for that.
    """

    def __init__(self, value: int = 1) -> None:
        """`value` is how many permits there are; below 0 raises ValueError."""
        if value < 0:
            raise ValueError("Semaphore initial value must be >= 0")
        # the line has those that wait, first come first; who is cancelled may stand there until its task runs
        Turnstile.__init__(self, value, UNBOUNDED, Line())
        # how many are inside _wait()
        self._waiting = 0

    # of asyncio's
    _loop: asyncio.AbstractEventLoop | None
    _get_loop: Callable[[], asyncio.AbstractEventLoop]

    @property
    def _waiters(self) -> Line:  # type: ignore[override]
        """What asyncio calls it: programs look at its length."""
        return self._line  # type: ignore[no-any-return]

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        # the short way in and out would pass by what a subclass has of its own
        if cls.acquire is not Semaphore.acquire:
            cls.__aenter__ = asyncio.Semaphore.__aenter__  # type: ignore[assignment, method-assign]
        if cls.release is not Semaphore.release:
            cls.__aexit__ = asyncio.Semaphore.__aexit__  # type: ignore[assignment, method-assign]

    def __repr__(self) -> str:
        state = "locked" if self.locked() else f"unlocked, value:{self._value}"
        waiters = f", waiters:{self._waiting}" if self._waiting else ""
        return f"<{object.__repr__(self)[1:-1]} [{state}{waiters}]>"

    def locked(self) -> bool:
        """Whether `acquire()` would wait: no permit is left, or others are before."""
        return self._value == 0 or self._granted > 0 or self._line.anyone()

    def try_acquire(self) -> bool:
        """Take a permit if that needs no waiting, and tell whether. Never overtakes anyone; not in asyncio's."""
        # what is left of the line may have been cancelled
        return self._take() or (not self._line.anyone() and self._take())

    async def acquire(self) -> Literal[True]:
        """Take a permit, waiting in turn until there is one; True.

        Raises RuntimeError if it would wait in another loop than before. When it raises, no permit is taken.
        """
        if not self._take():
            await self._wait()
        return True

    async def _wait(self) -> None:
        if self._value > 0 and self.try_acquire():
            return
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            loop = self._get_loop()
        future: asyncio.Future[bool] = loop.create_future()
        self._line.append(future)
        self._waiting += 1
        try:
            await future
            self._granted -= 1
        except BaseException:
            self._give_up(future)
            raise
        finally:
            self._waiting -= 1
            # a newcomer may have waited behind us although there was a permit
            while self._value > 0 and self._wake_next():
                pass

    def _awaited_in(self, _: str) -> tuple[str, str]:
        """What task telemetry says of who waits here: kind and state."""
        return "semaphore", f"{max(0, self._value)} left"

    def _give_up(self, future: asyncio.Future[bool]) -> None:
        if future.cancelled():
            self._line.leave()
        elif future.done():
            # handed to us, but we are going
            self._granted -= 1
            self._value += 1
        else:
            # the coroutine is closed while it waits
            self._line.remove(future)


class BoundedSemaphore(Semaphore, asyncio.BoundedSemaphore):  # type: ignore[misc]
    """A `Semaphore` that raises ValueError when more permits are given back than were taken."""

    def __init__(self, value: int = 1) -> None:
        """`value` is how many permits there are, at the start and at most; below 0 raises ValueError."""
        Semaphore.__init__(self, value)
        self._bound_value = value
