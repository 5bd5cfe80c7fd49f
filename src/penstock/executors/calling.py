"""The functions that programs call to await work in a lane, on penstock's loop, on stock asyncio's or uvloop's."""

from __future__ import annotations

import asyncio
import contextvars
import functools
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from penstock.executors.guests import lanes_of, present_lanes
from penstock.executors.job import span_ns
from penstock.executors.naming import check_plain, function_name

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable

    from penstock.executors.job import LoopJob
    from penstock.executors.meter import LaneStatistics

__all__ = ["offload", "offloaded", "statistics", "to_thread"]

P = ParamSpec("P")
T = TypeVar("T")


async def offload(
    fn: Callable[..., T],
    /,
    *args: Any,
    lane: str = "cpu",
    timeout: float | None = None,
    deadline: float | None = None,
    key: Hashable = None,
    retries: int = 0,
    priority: int = 0,
    **kwargs: Any,
) -> T:
    """Run `fn(*args, **kwargs)` in a lane and return its result.

    `timeout` is in seconds from now, `deadline` on `loop.time()`'s clock; the sooner one holds. When it passes, or when
    this call is cancelled, the job is interrupted. A `penstock.pressure.deadline` around the call bounds it too.
    Callers with the same `key` share one place in the lane's rotation.
    `retries` says that the job is idempotent: how often it may be run again after its worker is lost. The larger
    `priority` goes first where the lane knows priorities (a cluster's does). An argument of `fn` that has one of these
    names goes through functools.partial.

    Raises what `fn` raises, TimeoutError, Overloaded when the lane refuses, WorkerLost when the worker died,
    UnpicklableError for what cannot travel, ConfigError for a lane that is not declared.
    """
    timeout_s = _time_left_s(fn, timeout, deadline)
    result: T = await _call(lane, fn, args, kwargs, timeout_s=timeout_s, key=key, retries=retries, priority=priority)
    return result


async def to_thread(fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """As asyncio.to_thread, in the lane `io`: run in a copy of the current context. Raises as `offload` does."""
    result: T = await _call("io", fn, args, kwargs)
    return result


def _call(name: str, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], **how: Any) -> LoopJob:
    loop = asyncio.get_running_loop()
    lane = lanes_of(loop).get(name)
    check_plain(fn)
    # the thread's worker can run in a copy of the context; what travels elsewhere is the lane's to say
    context = contextvars.copy_context() if lane.config.kind == "threads" else None
    return lane.call(loop, fn, args, kwargs or None, context=context, **how)


def _time_left_s(fn: object, timeout: float | None, deadline: float | None) -> float | None:
    """The time a job has, in seconds; TimeoutError when it is over already, before anything is built for the job."""
    left_s = timeout
    if deadline is not None and span_ns(deadline) is not None:
        until_s = deadline - asyncio.get_running_loop().time()
        left_s = until_s if left_s is None else min(left_s, until_s)
    span = None if left_s is None else span_ns(left_s)
    if span is not None and span <= 0:
        raise TimeoutError(f"{function_name(fn)}: its time was up {-span / 1e9:.3f} s before it was offered to a lane")
    return left_s


@overload
def offloaded(fn: Callable[P, T], /) -> Callable[P, Coroutine[Any, Any, T]]: ...


@overload
def offloaded(
    *,
    lane: str = "cpu",
    timeout: float | None = None,
    key: Hashable = None,
    retries: int = 0,
    priority: int = 0,
) -> Callable[[Callable[P, T]], Callable[P, Coroutine[Any, Any, T]]]: ...


def offloaded(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    lane: str = "cpu",
    timeout: float | None = None,
    key: Hashable = None,
    retries: int = 0,
    priority: int = 0,
) -> Any:
    """Make a function one whose calls are awaited and run in a lane, as by `offload` with the same arguments.

    `@offloaded` or `@offloaded(lane="io", timeout=2)`. The function itself stays reachable as `__wrapped__`.
    """
    how = {"key": key, "retries": retries, "priority": priority}

    def decorate(fn: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, Any]]:
        check_plain(fn)

        @functools.wraps(fn)
        async def call(*args: Any, **kwargs: Any) -> Any:
            # no argument of the function is taken for one of ours: `offload` would
            return await _call(lane, undecorated, args, kwargs, timeout_s=_time_left_s(fn, timeout, None), **how)

        undecorated = Undecorated(fn, call)
        return call

    return decorate if fn is None else decorate(fn)


class Undecorated:
    """The function under `@offloaded`, for the way to another process.

    A function is pickled by its name, and that name is the decorated one's: this is found there by `__wrapped__`.
    """

    def __init__(self, fn: Callable[..., Any], decorated: Callable[..., Any]) -> None:
        functools.update_wrapper(self, fn)
        self._fn = fn
        self._decorated = decorated

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._fn(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (self._decorated, "__wrapped__")


def statistics() -> dict[str, LaneStatistics]:
    """The counts, times and bytes of each lane of the running loop that has been used."""
    lanes = present_lanes(asyncio.get_running_loop())
    return {} if lanes is None else lanes.statistics()
