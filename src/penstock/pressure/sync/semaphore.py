"""`Semaphore` and `BoundedSemaphore`: asyncio's semaphores with every wait, wake-up and cancellation in O(1).

asyncio keeps woken waiters in its queue until they run, skips all of them at each release, and searches the queue for
each cancelled waiter. Both are O(n) under the highest load. The queue of `penstock._core.sync.turnstile` has only
waiters that still wait.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any, Literal

from penstock.pressure.admission.core import Turnstile

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["BoundedSemaphore", "Semaphore"]

# the bound of permits of a semaphore that has none
UNBOUNDED = sys.maxsize


class Semaphore(Turnstile, asyncio.Semaphore):  # type: ignore[misc]
    """A counter of permits: `acquire()` takes one or waits for it, `release()` gives one back.

    Its interface and behaviour are those of `asyncio.Semaphore` in Python 3.13, on every Python. Waiters are served in
    the order of their arrival. If a waiter's task is cancelled after its permit was granted, the next waiter gets the
    permit. Use it as `async with semaphore`. The first wait binds it to the running loop. Its queue is unbounded; use
    `Gate` for a bounded one. `value` is the count of permits. Raises ValueError for a `value` below 0.
    """

    def __init__(self, value: int = 1) -> None:
        if value < 0:
            raise ValueError("Semaphore initial value must be >= 0")
        Turnstile.__init__(self, value, UNBOUNDED)

    @property
    def _waiters(self) -> Sequence[Any]:  # type: ignore[override]
        """The queued waiters under asyncio's name, whose length programs read."""
        return self._queued_waiters()

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        # the direct entry and exit would bypass methods that a subclass overrides
        if cls.acquire is not Semaphore.acquire:
            cls.__aenter__ = asyncio.Semaphore.__aenter__  # type: ignore[assignment, method-assign]
        if cls.release is not Semaphore.release:
            cls.__aexit__ = asyncio.Semaphore.__aexit__  # type: ignore[assignment, method-assign]

    def __repr__(self) -> str:
        state = "locked" if self.locked() else f"unlocked, value:{self._value}"
        waiters = f", waiters:{self._unfinished}" if self._unfinished else ""
        return f"<{object.__repr__(self)[1:-1]} [{state}{waiters}]>"

    async def acquire(self) -> Literal[True]:
        """Take a permit; wait, in order of arrival, until there is one. Return True.

        Raises RuntimeError if the wait would be in another loop than earlier ones. If this raises, no permit is taken.
        """
        if not self.try_acquire():
            await self._new_waiter()
        return True

    def _awaited_in(self, _: str) -> tuple[str, str]:
        """Return kind and state for task telemetry, which shows them for a waiting task."""
        return "semaphore", f"{max(0, self._value)} left"


class BoundedSemaphore(Semaphore, asyncio.BoundedSemaphore):  # type: ignore[misc]
    """A `Semaphore` that raises ValueError if more permits are given back than were taken.

    `value` is the count of permits at the start and at most. Raises ValueError for a `value` below 0.
    """

    def __init__(self, value: int = 1) -> None:
        Semaphore.__init__(self, value)
        self._bound_value = value
