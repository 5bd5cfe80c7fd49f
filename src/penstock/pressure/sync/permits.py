"""What a bounded group takes its permits from: a number, a semaphore, a capacity limiter or a gate, all seen alike.

A permit is an object that is handed on and given back once. Knows no groups.
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
    """What a gate must have to be a group's limit."""

    def try_enter(self) -> bool:
        """Enter without waiting, if that can be, and tell whether; a refusal is counted."""

    def leave(self) -> None:
        """Leave, after `try_enter`."""

    def entry(self) -> Any:
        """A passage: `await entry.enter()`, which may wait, and may raise `Overloaded`; then `entry.leave()`."""


class Permit:
    """One permit of `limit`, with whoever holds it now; `outer` is the one that its maker ran under.

    Given back or handed on, it holds nothing any more; giving it back then does nothing.
    """

    __slots__ = ("_giving_back", "_outer", "limit")

    def __init__(self, limit: object, giving_back: Callable[[], None]) -> None:
        self.limit = limit
        self._giving_back: Callable[[], None] | None = giving_back
        self._outer: Permit | None = None

    def give_back(self, _: object = None) -> None:
        """Give it back to where it came from, unless that was done or it was handed on."""
        giving_back, self._giving_back = self._giving_back, None
        if giving_back is not None:
            giving_back()

    def handed_on(self) -> Permit:
        """The same permit for another holder."""
        giving_back, self._giving_back = self._giving_back, None
        assert giving_back is not None
        return Permit(self.limit, giving_back)

    def put_under(self, outer: Permit | None) -> None:
        """Note under which permit the holder was made."""
        self._outer = outer
        if outer is not None:
            # the chain has only what was held lately: tasks that spawn tasks for ever do not make it longer
            outer._outer = outer._next_held()

    def _next_held(self) -> Permit | None:
        permit = self._outer
        while permit is not None and permit._giving_back is None:
            permit = permit._outer
        return permit

    def of_limit(self, limit: object) -> Permit | None:
        """The nearest permit of `limit` that is held, from this one outwards."""
        permit: Permit | None = self
        while permit is not None and (permit._giving_back is None or permit.limit is not limit):
            permit = permit._outer
        return permit


class PermitSource(Protocol):
    """Where permits come from."""

    @property
    def limit(self) -> object:
        """What the permits are permits of."""

    def quick(self) -> Permit | None:
        """A permit if one is free, else None; None always where each refusal is counted."""

    def try_take(self) -> Permit | None:
        """A permit if that needs no waiting, else None."""

    def begin(self) -> tuple[Permit, Awaitable[object]]:
        """A permit, which is had once what stands beside it has been awaited: that waits in turn."""


def source_of(limit: int | Semaphore | CapacityLimiter | GateLike) -> PermitSource:
    """The source of permits that `limit` means; TypeError or ValueError if it means none."""
    if isinstance(limit, int):
        if limit < 1:
            raise ValueError(f"limit = {limit}: must be 1 or more, or nothing could ever run")
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
        # a coroutine less than acquire(), unless a subclass has one of its own
        return Permit(self.limit, self.limit.release), self.limit.__aenter__()


class _LimiterSource:
    """The borrower is an object of its own: the task that it will belong to does not exist yet."""

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
        # an entry, so that the gate knows how long it was inside
        entry = self.limit.entry()
        return Permit(self.limit, entry.leave), entry.enter()
