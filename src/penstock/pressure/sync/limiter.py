"""`CapacityLimiter`: tokens with borrowers and an adjustable total, with the interface of anyio's.

Two things differ from anyio. `acquire()` does not yield to the loop unless it waits, and a full limiter raises
`Overloaded` from the methods that do not wait. Every operation is O(1).
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
    """The counts of a limiter.

    `borrowed_tokens` of `total_tokens` are borrowed, by `borrowers`; `tasks_waiting` is the count of waiting tasks.
    """

    borrowed_tokens: int
    total_tokens: float
    borrowers: tuple[Hashable, ...]
    tasks_waiting: int


class CapacityLimiter:
    """A limiter that lends at most `total_tokens` tokens, at most one to each borrower.

    `async with limiter` borrows a token for the running task; `acquire_on_behalf_of` borrows one for any other hashable
    object. Waiters are served in the order of their arrival. The first wait binds the limiter to the running loop.

    `total_tokens` is a whole number of at least 0, or `math.inf`. Raises TypeError for another type and ValueError for
    a number below 0.
    """

    def __init__(self, total_tokens: float) -> None:
        self._total = _checked(total_tokens)
        # an OrderedDict removes its first and any other waiter in O(1)
        self._borrowers: dict[Hashable, None] = {}
        self._waiters: OrderedDict[Hashable, Waiter] = OrderedDict()
        self._loop: asyncio.AbstractEventLoop | None = None

    def __repr__(self) -> str:
        waiting = f", waiting:{len(self._waiters)}" if self._waiters else ""
        return f"<CapacityLimiter at {id(self):#x} [{len(self._borrowers)}/{self._total} borrowed{waiting}]>"

    @property
    def total_tokens(self) -> float:
        """The count of tokens. Raising it serves waiters at once; lowering it takes effect as tokens are released."""
        return self._total

    @total_tokens.setter
    def total_tokens(self, total_tokens: float) -> None:
        self._total = _checked(total_tokens)
        self._grant_waiters()

    @property
    def borrowed_tokens(self) -> int:
        """The count of borrowed tokens; it may exceed the total after that was lowered."""
        return len(self._borrowers)

    @property
    def available_tokens(self) -> float:
        """The count of tokens that are left; it may be below 0 after the total was lowered."""
        return self._total - len(self._borrowers)

    def statistics(self) -> CapacityStatistics:
        """Return the present counts."""
        return CapacityStatistics(len(self._borrowers), self._total, tuple(self._borrowers), len(self._waiters))

    def acquire_nowait(self) -> None:
        """Borrow a token for the running task without waiting.

        Raises `Overloaded` (reason `limit`) if none is left or other tasks wait; RuntimeError if the task has one.
        """
        self.acquire_on_behalf_of_nowait(_this_task())

    def acquire_on_behalf_of_nowait(self, borrower: Hashable) -> None:
        """Borrow a token for `borrower`, any hashable object, without waiting.

        Raises `Overloaded` (reason `limit`) if none is left or other tasks wait; RuntimeError if the borrower has one.
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
        """Borrow a token for the running task; wait, in order of arrival, until there is one.

        Raises RuntimeError as `acquire_on_behalf_of` does.
        """
        await self.acquire_on_behalf_of(_this_task())

    async def acquire_on_behalf_of(self, borrower: Hashable) -> None:
        """Borrow a token for `borrower`, any hashable object; wait, in order of arrival, until there is one.

        Raises RuntimeError if the borrower has a token or waits already, or if the wait would be in another loop than
        earlier ones. If this raises, no token is borrowed.
        """
        await self._borrow(borrower)

    def release(self) -> None:
        """Release the running task's token. Raises RuntimeError if it has none."""
        self.release_on_behalf_of(_this_task())

    def release_on_behalf_of(self, borrower: Hashable) -> None:
        """Release the token of `borrower`; the first waiter gets it. Raises RuntimeError if the borrower has none."""
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
        """Return kind and state for task telemetry, which shows them for a waiting task."""
        return "limiter", f"{len(self._borrowers)}/{self._total} borrowed"

    def _check_new(self, borrower: Hashable) -> None:
        if borrower in self._borrowers:
            raise RuntimeError("this borrower is already holding one of this CapacityLimiter's tokens")
        if borrower in self._waiters:
            raise RuntimeError("this borrower is already waiting for one of this CapacityLimiter's tokens")

    def _is_free(self) -> bool:
        return not self._waiters and len(self._borrowers) < self._total

    def _grant_waiters(self) -> None:
        """Grant the free tokens to the first waiters."""
        while self._waiters and len(self._borrowers) < self._total:
            borrower, waiter = self._waiters.popitem(last=False)
            self._borrowers[borrower] = None
            waiter.grant()

    def _borrow(self, borrower: Hashable) -> Awaitable[None]:
        """Borrow a token at once if possible. Return an awaitable that ends when the token is borrowed."""
        if self._is_free() and borrower not in self._borrowers:
            self._borrowers[borrower] = None
            return DONE
        waiter = Waiter()
        waiter.owner, waiter.key, waiter.is_unstarted = self, borrower, True
        return waiter

    # Calls of a waiter: when it is awaited, resumed with a token, cancelled, or cancelled after its token was granted.

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
