"""`Semaphore` and `BoundedSemaphore`: asyncio's, with every wait, wake-up and cancellation in O(1).

asyncio keeps those it has woken in the line until they run, and looks past all of them for the next one; it searches
the line again for each that is cancelled: both are O(n) each, in the moment of most load. Here the line holds only
those that still wait, in an ordered dict. Knows no gate and no limit that moves.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Generator
    from types import TracebackType

__all__ = ["BoundedSemaphore", "Semaphore"]

Line = OrderedDict["asyncio.Future[bool]", None]


class _Done:
    """An awaitable that is done: cheaper than a coroutine that does not wait."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, None]:
        return _NOTHING  # type: ignore[return-value]


# an iterator that has ended ends again each time
_NOTHING = iter(())
_DONE = _Done()


class Semaphore(asyncio.Semaphore):
    """A counter of permits: `acquire()` takes one and waits for it in turn, `release()` gives one back.

    It is an `asyncio.Semaphore` in all that can be seen from outside, on every Python as 3.13 has it: who comes first
    is served first, and a permit that was handed to a waiter whose task is then cancelled goes to the next one. Use it
    as `async with semaphore`. The first wait binds it to the running loop. Its line is not bounded: `Gate` is for that.
    """

    def __init__(self, value: int = 1) -> None:
        """`value` is how many permits there are; below 0 raises ValueError."""
        super().__init__(value)
        # those that wait, first come first; who is cancelled may stand here until its task runs
        self._line: Line = OrderedDict()
        # how many have a permit, and have not run since
        self._granted = 0
        # how many are inside acquire()
        self._waiting = 0

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if cls.acquire is not Semaphore.acquire:
            # the short way in would pass by an acquire() of the subclass
            cls.__aenter__ = asyncio.Semaphore.__aenter__  # type: ignore[method-assign]

    def __repr__(self) -> str:
        state = "locked" if self.locked() else f"unlocked, value:{self._value}"
        waiters = f", waiters:{self._waiting}" if self._waiting else ""
        return f"<{object.__repr__(self)[1:-1]} [{state}{waiters}]>"

    def locked(self) -> bool:
        """Whether `acquire()` would wait: no permit is left, or others are before."""
        return self._value == 0 or self._granted > 0 or self._any_waits()

    def _any_waits(self) -> bool:
        """Those in front that are cancelled leave the line, so that each is looked at once."""
        line = self._line
        while line:
            first = next(iter(line))
            if not first.cancelled():
                return True
            del line[first]
        return False

    def try_acquire(self) -> bool:
        """Take a permit if that needs no waiting, and tell whether. Never overtakes anyone; not in asyncio's."""
        if self.locked():
            return False
        self._value -= 1
        return True

    async def acquire(self) -> Literal[True]:
        """Take a permit, waiting in turn until there is one; True.

        Raises RuntimeError if it would wait in another loop than before. When it raises, no permit is taken.
        """
        if self._value > 0 and not self._granted and (not self._line or not self._any_waits()):
            self._value -= 1
            return True
        future: asyncio.Future[bool] = self._get_loop().create_future()  # type: ignore[attr-defined]
        self._line[future] = None
        self._waiting += 1
        try:
            await future
        except BaseException:
            if future.done() and not future.cancelled():
                # handed to us, but we are going
                self._value += 1
            raise
        finally:
            self._waiting -= 1
            if future.done() and not future.cancelled():
                self._granted -= 1
            else:
                self._line.pop(future, None)
            # a newcomer may have waited behind us although there was a permit
            while self._value > 0 and self._wake_next():
                pass
        return True

    def release(self) -> None:
        """Give a permit back; the first that waits gets it."""
        self._value += 1
        self._wake_next()

    def _wake_next(self) -> bool:
        line = self._line
        while line:
            future, _ = line.popitem(last=False)
            if not future.done():
                self._value -= 1
                self._granted += 1
                future.set_result(True)
                return True
        return False

    def __aenter__(self) -> Awaitable[None]:  # type: ignore[override]
        if self._value > 0 and not self._granted and not self._line:
            self._value -= 1
            return _DONE
        return self._enter()

    async def _enter(self) -> None:
        await self.acquire()

    def __aexit__(  # type: ignore[override]
        self, kind: type[BaseException] | None, problem: BaseException | None, traceback: TracebackType | None
    ) -> Awaitable[None]:
        self.release()
        return _DONE


class BoundedSemaphore(Semaphore, asyncio.BoundedSemaphore):
    """A `Semaphore` that raises ValueError when more permits are given back than were taken."""

    _bound_value: int

    def release(self) -> None:
        """Give a permit back; ValueError if none is out."""
        if self._value >= self._bound_value:
            raise ValueError("BoundedSemaphore released too many times")
        super().release()
