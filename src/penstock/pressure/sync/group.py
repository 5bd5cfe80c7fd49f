"""`BoundedTaskGroup`: asyncio's TaskGroup with a limit, in which no task exists before its permit.

Knows of limits what `permits` says of them.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar, copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

from penstock.errors import Overloaded
from penstock.pressure.sync.permits import source_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextvars import Context

    from penstock.pressure.sync.limiter import CapacityLimiter
    from penstock.pressure.sync.permits import GateLike, Permit
    from penstock.pressure.sync.semaphore import Semaphore

__all__ = ["BoundedTaskGroup"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# What the running task was given its permit by. Who waits for its own children does no work, so if no permit of the
# limit is free, it hands on the one that it has itself: else tasks that all hold one and all wait for another would
# wait for ever. A context variable, because who spawns may be a task of the holder's: gather() makes such.
_current_permit: ContextVar[Permit | None] = ContextVar("penstock_permit", default=None)


class BoundedTaskGroup(asyncio.TaskGroup):
    """An `asyncio.TaskGroup` of which at most `limit` tasks exist at a time.

    `limit` is a number of this group's own, or a `Semaphore`, `CapacityLimiter` or `Gate` that groups share: nested
    groups with one limit are bounded together, and do not wait for each other in a circle. When a task spawns and its
    limit is used up, it hands on the permit that it has itself; what it does after that is not counted.
    """

    def __init__(
        self,
        limit: int | Semaphore | CapacityLimiter | GateLike | None = None,
        *,
        gate: GateLike | None = None,
    ) -> None:
        """Either `limit` or `gate`. ValueError for a number below 1, TypeError for what is no limit."""
        super().__init__()
        given = [one for one in (limit, gate) if one is not None]
        if len(given) != 1:
            raise TypeError("BoundedTaskGroup() takes a limit: a number, a semaphore, a limiter, or gate=")
        self._source = source_of(given[0])

    def __repr__(self) -> str:
        return super().__repr__().replace("TaskGroup", type(self).__name__, 1)

    async def spawn(
        self,
        fn: Callable[[*Ts], Coroutine[Any, Any, T]],
        *args: *Ts,
        name: str | None = None,
        context: Context | None = None,
    ) -> asyncio.Task[T]:
        """Wait for a permit, then start `fn(*args)` as a task, which gives the permit back when it ends.

        Until there is a permit, neither the coroutine nor the task exists. Raises what the limit raises (a gate's
        `Overloaded`), and RuntimeError, as `create_task` does, if the group takes no tasks when the permit is there.
        """
        permit = self._quick()
        if permit is None:
            permit, entering = self._source.begin()
            await entering
        try:
            coro = fn(*args)
        except BaseException:
            permit.give_back()
            raise
        return self._started(coro, permit, name, context)

    def create_task(  # type: ignore[override]
        self, coro: Coroutine[Any, Any, T], *, name: str | None = None, context: Context | None = None, **options: Any
    ) -> asyncio.Task[T]:
        """Start a task at once, as asyncio's group does, if a permit is free.

        It cannot wait for one: if none is free it closes the coroutine and raises `Overloaded` (reason `limit`).
        """
        permit = self._quick() or self._source.try_take()
        if permit is None:
            coro.close()
            raise Overloaded(
                f"{self!r} has no permit free: wait for one with `await group.spawn(fn, *args)`", reason="limit"
            )
        return self._started(coro, permit, name, context, options)

    def _quick(self) -> Permit | None:
        """A permit without a wait or a refusal: a free one, or the running task's own."""
        permit = self._source.quick()
        if (
            permit is None
            and (mine := _current_permit.get()) is not None
            and (own := mine.of_limit(self._source.limit))
        ):
            return own.handed_on()
        return permit

    def _started(
        self,
        coro: Coroutine[Any, Any, T],
        permit: Permit,
        name: str | None,
        context: Context | None,
        options: dict[str, Any] | None = None,
    ) -> asyncio.Task[T]:
        make = super().create_task
        if options:
            make = partial(make, **options)
        try:
            task = make(coro, name=name, context=_context_with(permit, context))
        except BaseException:
            coro.close()
            permit.give_back()
            raise
        if task.done():
            # an eager one
            permit.give_back()
        else:
            task.add_done_callback(permit.give_back)
        return task


def _context_with(permit: Permit, context: Context | None) -> Context:
    """The context for a permit's task: a copy of this one, unless one is given."""
    permit.put_under(_current_permit.get())
    if context is None:
        context = copy_context()
    try:
        context.run(_current_permit.set, permit)
    except RuntimeError:
        # the running one itself, which is to be shared: what is under our permit is under ours
        pass
    return context
