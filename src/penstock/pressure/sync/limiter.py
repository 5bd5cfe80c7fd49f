"""`CapacityLimiter`: permits that have borrowers, as many as is set at any time. The shape is anyio's.

What differs is what asyncio differs in: an `acquire()` that need not wait does not, and a full limiter that may not
wait raises `Overloaded`. Every operation is O(1). Knows no gate.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from penstock.errors import Overloaded
from penstock.pressure.admission.core import DONE, Waiter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Hashable
    from types import TracebackType

__all__ = ["CapacityLimiter", "CapacityStatistics"]


@dataclass(frozen=True, slots=True)
class CapacityStatistics:
    """A limiter's counts: `total_tokens`, of which `borrowed_tokens` are with `borrowers`; `tasks_waiting` for one."""

    borrowed_tokens: int
    total_tokens: float
    borrowers: tuple[Hashable, ...]
    tasks_waiting: int


class CapacityLimiter:
    """Lends tokens to borrowers, a task by default, at most one to each and `total_tokens` in all.

    `async with limiter` borrows one for the running task; `acquire_on_behalf_of` for any other object that can be
    hashed. First come, first served. The first wait binds it to the running loop.
    """

    def __init__(self, total_tokens: float) -> None:
        """`total_tokens` is a whole number, 0 or more, or `math.inf`; else TypeError or ValueError."""
        self._total = _checked(total_tokens)
        # OrderedDicts: the first one is had, and any one removed, in O(1)
        self._borrowers: dict[Hashable, None] = {}
        self._waiters: OrderedDict[Hashable, Waiter] = OrderedDict()
        self._loop: asyncio.AbstractEventLoop | None = None

    def __repr__(self) -> str:
        waiting = f", waiting:{len(self._waiters)}" if self._waiters else ""
        return f"<CapacityLimiter at {id(self):#x} [{len(self._borrowers)}/{self._total} borrowed{waiting}]>"

    @property
    def total_tokens(self) -> float:
        """How many tokens may be out. More let in at once who waits; fewer take effect as they come back."""
        return self._total

    @total_tokens.setter
    def total_tokens(self, total_tokens: float) -> None:
        self._total = _checked(total_tokens)
        self._grant_waiters()

    @property
    def borrowed_tokens(self) -> int:
        """How many tokens are out; more than the total for a while after it was lowered."""
        return len(self._borrowers)

    @property
    def available_tokens(self) -> float:
        """How many more could be lent; below 0 after the total was lowered."""
        return self._total - len(self._borrowers)

    def statistics(self) -> CapacityStatistics:
        """The counts as they are now."""
        return CapacityStatistics(len(self._borrowers), self._total, tuple(self._borrowers), len(self._waiters))

    def acquire_nowait(self) -> None:
        """Borrow a token for the running task without waiting, as `acquire_on_behalf_of_nowait` does."""
        self.acquire_on_behalf_of_nowait(_this_task())

    def acquire_on_behalf_of_nowait(self, borrower: Hashable) -> None:
        """Borrow a token without waiting.

        Raises `Overloaded` (reason `limit`) if none is left or others wait; RuntimeError if the borrower has one.
        """
        self._check_new(borrower)
        if not self._is_free():
            raise Overloaded(
                f"all {self._total} tokens are borrowed and {len(self._waiters)} tasks wait: "
                "wait with acquire(), or raise total_tokens",
                reason="limit",
                queued=len(self._waiters),
                limit=int(self._total),
            )
        self._borrowers[borrower] = None

    async def acquire(self) -> None:
        """Borrow a token for the running task, waiting in turn until there is one."""
        await self.acquire_on_behalf_of(_this_task())

    async def acquire_on_behalf_of(self, borrower: Hashable) -> None:
        """Borrow a token, waiting in turn until there is one. When it raises, none is borrowed.

        Raises RuntimeError if the borrower has one or waits already, or if it would wait in another loop than before.
        """
        await self._borrow(borrower)

    def release(self) -> None:
        """Give back the running task's token; RuntimeError if it has none."""
        self.release_on_behalf_of(_this_task())

    def release_on_behalf_of(self, borrower: Hashable) -> None:
        """Give back a borrower's token, which goes to the first that waits; RuntimeError if it has none."""
        try:
            del self._borrowers[borrower]
        except KeyError:
            raise RuntimeError("this borrower isn't holding any of this CapacityLimiter's tokens") from None
        self._grant_waiters()

    def __aenter__(self) -> Awaitable[None]:
        return self._borrow(_this_task())

    def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, traceback: TracebackType | None
    ) -> Awaitable[None]:
        self.release_on_behalf_of(_this_task())
        return DONE

    def _awaited_in(self, _: str) -> tuple[str, str]:
        """What task telemetry says of who waits here: kind and state."""
        return "limiter", f"{len(self._borrowers)}/{self._total} borrowed"

    def _check_new(self, borrower: Hashable) -> None:
        if borrower in self._borrowers:
            raise RuntimeError("this borrower is already holding one of this CapacityLimiter's tokens")
        if borrower in self._waiters:
            raise RuntimeError("this borrower is already waiting for one of this CapacityLimiter's tokens")

    def _is_free(self) -> bool:
        return not self._waiters and len(self._borrowers) < self._total

    def _grant_waiters(self) -> None:
        """Give what there is to the first in the line."""
        while self._waiters and len(self._borrowers) < self._total:
            borrower, waiter = self._waiters.popitem(last=False)
            self._borrowers[borrower] = None
            waiter.grant()

    def _borrow(self, borrower: Hashable) -> Awaitable[None]:
        """A token: at once if that can be, else when what this gives has been awaited."""
        if self._is_free() and borrower not in self._borrowers:
            self._borrowers[borrower] = None
            return DONE
        waiter = Waiter()
        waiter.owner, waiter.key, waiter.is_unstarted = self, borrower, True
        return waiter

    # What a waiter tells: it is awaited, its task runs with a token, it was cancelled, it has a token but is going.

    def _start(self, waiter: Waiter) -> bool:
        self._check_new(waiter.key)
        if self._is_free():
            self._borrowers[waiter.key] = None
            return False
        waiter.loop = self._bound_loop()
        self._waiters[waiter.key] = waiter
        return True

    def _admitted(self, _: Waiter) -> None:
        pass

    def _abandoned(self, waiter: Waiter) -> None:
        del self._waiters[waiter.key]

    def _forfeited(self, waiter: Waiter) -> None:
        self.release_on_behalf_of(waiter.key)

    def _bound_loop(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        if loop is not self._loop:
            raise RuntimeError(f"{self!r} is bound to a different event loop")
        return loop


def _checked(total_tokens: float) -> float:
    whole: Any = total_tokens
    if not isinstance(whole, int) and whole != math.inf:
        raise TypeError(f"total_tokens = {total_tokens!r}: must be an int or math.inf")
    if total_tokens < 0:
        raise ValueError(f"total_tokens = {total_tokens}: must be 0 or more")
    return total_tokens


def _this_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("no task is running that could borrow a token: use acquire_on_behalf_of()")
    return task
