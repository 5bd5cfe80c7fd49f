"""`BoundedTaskGroup`: asyncio's TaskGroup with a limit, in which no task exists before its permit.

Every kind of limit is used through `permits`.
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

# The permit of the running task. A task that waits for its children does no work, so it hands its own permit on if no
# other of the limit is free. Otherwise tasks that each hold a permit and wait for another would wait for ever. It is a
# context variable, because a task made by the holder may spawn too, for instance one of gather().
_current_permit: ContextVar[Permit | None] = ContextVar("penstock_permit", default=None)


class BoundedTaskGroup(asyncio.TaskGroup):
    """An `asyncio.TaskGroup` with at most `limit` tasks at a time.

    `limit` is a count for this group alone, or a `Semaphore`, `CapacityLimiter` or `Gate` that groups share. Nested
    groups with a shared limit are bounded together and do not wait for each other in a circle. A task that spawns while
    its limit is used up hands its own permit on; its further work is not counted.

    `gate` is another name for a limit that is a gate; exactly one of both is given. Raises ValueError for a count below
    1, and TypeError for any other object, or for none or two limits.
    """

    def __init__(
        self,
        limit: int | Semaphore | CapacityLimiter | GateLike | None = None,
        *,
        gate: GateLike | None = None,
    ) -> None:
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
        """Wait for a permit, then start `fn(*args)` as a task and return it. The task's end releases the permit.

        Neither the coroutine nor the task exists before the permit. `name` and `context` are those of the task. Raises
        the limit's exception, such as a gate's `Overloaded`; and RuntimeError, as `create_task` does, if the group is
        not active when the permit is granted.
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
        """Start `coro` as a task at once, as asyncio's group does, if a permit is free. Return the task.

        `name`, `context` and `options` are those of asyncio's `TaskGroup.create_task`. Without a free permit the
        coroutine is closed and `Overloaded` is raised, with reason `limit`.
        """
        permit = self._quick() or self._source.try_take()
        if permit is None:
            coro.close()
            raise Overloaded(
                f"{self!r} has no permit free: wait for one with `await group.spawn(fn, *args)`", reason="limit"
            )
        return self._started(coro, permit, name, context, options)

    def _quick(self) -> Permit | None:
        """Return a free permit, or the running task's own; None if there is neither. No refusal is counted."""
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
            # an eager task
            permit.give_back()
        else:
            task.add_done_callback(permit.give_back)
        return task


def _context_with(permit: Permit, context: Context | None) -> Context:
    """Return the context for a permit's task: the given one, or a copy of the present one."""
    permit.put_under(_current_permit.get())
    if context is None:
        context = copy_context()
    try:
        context.run(_current_permit.set, permit)
    except RuntimeError:
        # the given context is the running one: it keeps its own permit
        pass
    return context
