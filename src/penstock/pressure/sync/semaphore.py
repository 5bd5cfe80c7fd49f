"""`Semaphore` and `BoundedSemaphore`: asyncio's, with every wait, wake-up and cancellation in O(1).

asyncio keeps those it has woken in the line until they run, and looks past all of them for the next one; it searches
the line again for each that is cancelled: both are O(n) each, in the moment of most load. Here the line holds only
those that still wait: it is `penstock._core.sync.turnstile`'s. Knows no gate and no limit that moves.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any, Literal

from penstock.pressure.admission.core import Turnstile

if TYPE_CHECKING:
    from collections.abc import Sequence

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
        Turnstile.__init__(self, value, UNBOUNDED)

    @property
    def _waiters(self) -> Sequence[Any]:  # type: ignore[override]
        """What asyncio calls its line: programs look at its length."""
        return self._queued_waiters()

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        # the short way in and out would pass by what a subclass has of its own
        if cls.acquire is not Semaphore.acquire:
            cls.__aenter__ = asyncio.Semaphore.__aenter__  # type: ignore[assignment, method-assign]
        if cls.release is not Semaphore.release:
            cls.__aexit__ = asyncio.Semaphore.__aexit__  # type: ignore[assignment, method-assign]

    def __repr__(self) -> str:
        state = "locked" if self.locked() else f"unlocked, value:{self._value}"
        waiters = f", waiters:{self._unfinished}" if self._unfinished else ""
        return f"<{object.__repr__(self)[1:-1]} [{state}{waiters}]>"

    async def acquire(self) -> Literal[True]:
        """Take a permit, waiting in turn until there is one; True.

        Raises RuntimeError if it would wait in another loop than before. When it raises, no permit is taken.
        """
        if not self.try_acquire():
            await self._new_waiter()
        return True

    def _awaited_in(self, _: str) -> tuple[str, str]:
        """What task telemetry says of who waits here: kind and state."""
        return "semaphore", f"{max(0, self._value)} left"


class BoundedSemaphore(Semaphore, asyncio.BoundedSemaphore):  # type: ignore[misc]
    """A `Semaphore` that raises ValueError when more permits are given back than were taken."""

    def __init__(self, value: int = 1) -> None:
        """`value` is how many permits there are, at the start and at most; below 0 raises ValueError."""
        Semaphore.__init__(self, value)
        self._bound_value = value
