"""Permits of a bounded group: one interface to a count, a semaphore, a capacity limiter and a gate.

A permit is an object that can be handed on, and is given back once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from penstock.errors import Overloaded
from penstock.pressure.sync.limiter import CapacityLimiter
from penstock.pressure.sync.semaphore import Semaphore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["GateLike", "Permit", "PermitSource", "source_of"]


@runtime_checkable
class GateLike(Protocol):
    """The interface that a gate needs to be a group's limit."""

    def try_enter(self) -> bool:
        """Enter if that needs no wait, and return whether it did; a refusal is counted."""

    def leave(self) -> None:
        """Release the permit that `try_enter` took."""

    def entry(self) -> Any:
        """Return an entry: `await entry.enter()` may wait or raise `Overloaded`; `entry.leave()` releases it."""


class Permit:
    """One permit of `limit`, linked to the permit under which its holder was made.

    A permit that was given back or handed on is empty; giving it back again does nothing.
    """

    __slots__ = ("_giving_back", "_outer", "limit")

    def __init__(self, limit: object, giving_back: Callable[[], None]) -> None:
        self.limit = limit
        self._giving_back: Callable[[], None] | None = giving_back
        self._outer: Permit | None = None

    def give_back(self, _: object = None) -> None:
        """Give the permit back to its limit, unless it is empty."""
        giving_back, self._giving_back = self._giving_back, None
        if giving_back is not None:
            giving_back()

    def handed_on(self) -> Permit:
        """Return the same permit for another holder, and empty this object."""
        giving_back, self._giving_back = self._giving_back, None
        assert giving_back is not None
        return Permit(self.limit, giving_back)

    def put_under(self, outer: Permit | None) -> None:
        """Record the permit under which the holder was made."""
        self._outer = outer
        if outer is not None:
            # skip empty permits, so that an endless series of tasks that spawn tasks does not lengthen the chain
            outer._outer = outer._next_held()

    def _next_held(self) -> Permit | None:
        permit = self._outer
        while permit is not None and permit._giving_back is None:
            permit = permit._outer
        return permit

    def of_limit(self, limit: object) -> Permit | None:
        """Return the nearest held permit of `limit`, from this one outwards; None if there is none."""
        permit: Permit | None = self
        while permit is not None and (permit._giving_back is None or permit.limit is not limit):
            permit = permit._outer
        return permit


class PermitSource(Protocol):
    """The interface of a source of permits."""

    @property
    def limit(self) -> object:
        """The object whose permits these are."""

    def quick(self) -> Permit | None:
        """Return a permit if one is free, else None. Always None for a limit that counts each refusal."""

    def try_take(self) -> Permit | None:
        """Return a permit if that needs no wait, else None."""

    def begin(self) -> tuple[Permit, Awaitable[object]]:
        """Return a permit and an awaitable; the permit is held once the awaitable has ended."""


def source_of(limit: int | Semaphore | CapacityLimiter | GateLike) -> PermitSource:
    """Return the source of permits for `limit`, a count or a limit object. Raises TypeError or ValueError."""
    if isinstance(limit, int):
        if limit < 1:
            raise ValueError(f"limit = {limit}: must be at least 1")
        return _SemaphoreSource(Semaphore(limit))
    if isinstance(limit, Semaphore):
        return _SemaphoreSource(limit)
    if isinstance(limit, CapacityLimiter):
        return _LimiterSource(limit)
    if isinstance(limit, GateLike):
        return _GateSource(limit)
    raise TypeError(f"limit = {limit!r}: must be an int, or penstock's Semaphore, CapacityLimiter or Gate")


class _SemaphoreSource:
    def __init__(self, limit: Semaphore) -> None:
        self.limit = limit

    def try_take(self) -> Permit | None:
        return Permit(self.limit, self.limit.release) if self.limit.try_acquire() else None

    quick = try_take

    def begin(self) -> tuple[Permit, Awaitable[object]]:
        # saves a coroutine compared with acquire(), unless a subclass overrides that
        return Permit(self.limit, self.limit.release), self.limit.__aenter__()


class _LimiterSource:
    """A limiter as a source. Each borrower is a new object, because its task does not exist yet."""

    def __init__(self, limit: CapacityLimiter) -> None:
        self.limit = limit

    def _permit(self, borrower: object) -> Permit:
        return Permit(self.limit, lambda: self.limit.release_on_behalf_of(borrower))

    def try_take(self) -> Permit | None:
        borrower = object()
        try:
            self.limit.acquire_on_behalf_of_nowait(borrower)
        except Overloaded:
            return None
        return self._permit(borrower)

    quick = try_take

    def begin(self) -> tuple[Permit, Awaitable[object]]:
        borrower = object()
        return self._permit(borrower), self.limit.acquire_on_behalf_of(borrower)


class _GateSource:
    def __init__(self, limit: GateLike) -> None:
        self.limit = limit

    def quick(self) -> Permit | None:
        return None

    def try_take(self) -> Permit | None:
        return Permit(self.limit, self.limit.leave) if self.limit.try_enter() else None

    def begin(self) -> tuple[Permit, Awaitable[object]]:
        # an entry, so that the gate measures its service time
        entry = self.limit.entry()
        return Permit(self.limit, entry.leave), entry.enter()
