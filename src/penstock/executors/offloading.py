"""The functions that programs call to await work in a lane, on penstock's loop, on stock asyncio's or uvloop's.

Every argument and keyword of a call is the function's own. How it is offloaded is said apart: `offload.options(...)`.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ParamSpec, TypedDict, TypeVar, overload

from penstock.config.converters import nearest
from penstock.executors.call import check_plain, function_name
from penstock.executors.foreign_loops import lanes_of, present_lanes
from penstock.executors.job import span_ns
from penstock.executors.notebook_pickling import identity, is_interactive

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable
    from typing import Unpack

    from penstock.executors.counters import LaneStatistics
    from penstock.executors.job import LoopJob

__all__ = ["Offload", "offload", "offloaded", "statistics", "to_thread"]

P = ParamSpec("P")
T = TypeVar("T")


class OffloadOptions(TypedDict, total=False):
    """What `Offload.options` takes."""

    lane: str
    timeout: float | None
    deadline: float | None
    key: Hashable
    retries: int
    priority: int


@dataclass(frozen=True, slots=True)
class Offload:
    """How calls are offloaded; a call of it offloads one: `await offload(fn, *args, **kwargs)`.

    `timeout` is in seconds from the call, `deadline` on `loop.time()`'s clock; the sooner one holds, and so does a
    `penstock.pressure.deadline` around the call. When it passes, or when the call is cancelled, the job is interrupted.
    Callers with the same `key` share one place in the lane's rotation. `retries` says that the job is idempotent: how
    often it may be run again after its worker is lost. The larger `priority` goes first where the lane knows priorities
    (a cluster's does).
    """

    lane: str = "cpu"
    timeout: float | None = None
    deadline: float | None = None
    key: Hashable = None
    retries: int = 0
    priority: int = 0

    async def __call__(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `fn(*args, **kwargs)` in the lane and return its result.

        Raises what `fn` raises, TimeoutError, Overloaded when the lane refuses, WorkerLost when the worker died,
        UnpicklableError for what cannot travel, ConfigError for a lane that is not declared, TypeError for a coroutine
        function and for an option among the arguments of a function that does not take it.
        """
        if kwargs:
            _check_keywords(fn, kwargs)
        result: T = await self._begin(fn, args, kwargs)
        return result

    def options(self, **changes: Unpack[OffloadOptions]) -> Offload:
        """Return the same with some options changed: `await offload.options(lane="db", timeout=5)(fn, ...)`."""
        for name in changes:
            if name not in OPTIONS:
                known = list(OffloadOptions.__annotations__)
                hint = nearest(name, known) or f": there are {', '.join(known)}"
                raise TypeError(f"offload.options() has no option {name!r}{hint}")
        return replace(self, **changes)

    def _begin(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> LoopJob:
        timeout_s = None
        if self.timeout is not None or self.deadline is not None:
            timeout_s = _time_left_s(fn, self.timeout, self.deadline)
        loop = asyncio.get_running_loop()
        lane = lanes_of(loop).get(self.lane)
        context = None
        if lane.config.kind == "threads":
            # a thread would run one, and give its coroutine; every other lane refuses it itself
            check_plain(fn)
            # it can run in a copy of the context, too; what travels elsewhere is the lane's to say
            context = contextvars.copy_context()
        return lane.call(
            loop,
            fn,
            args,
            kwargs or None,
            timeout_s=timeout_s,
            key=self.key,
            priority=self.priority,
            retries=self.retries,
            context=context,
        )


OPTIONS = frozenset(OffloadOptions.__annotations__)
offload = Offload()
_io = Offload(lane="io")


async def to_thread(fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """As asyncio.to_thread, in the lane `io`: run in a copy of the current context. Raises as `offload` does."""
    if kwargs:
        _check_keywords(fn, kwargs)
    result: T = await _io._begin(fn, args, kwargs)
    return result


def _check_keywords(fn: Callable[..., Any], kwargs: dict[str, Any]) -> None:
    """Raise TypeError for an option among the arguments of a function that does not take it."""
    if OPTIONS.isdisjoint(kwargs):
        return
    try:
        parameters = inspect.signature(fn).parameters
    except (TypeError, ValueError):
        return  # a function of C's that does not say what it takes
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    options = [name for name in kwargs if name in OPTIONS and name not in parameters]
    if options:
        said = ", ".join(f"{name}={kwargs[name]!r}" for name in options)
        raise TypeError(
            f"{function_name(fn)} takes no argument {options[0]!r}; an option of the call stands before it: "
            f"penstock.offload.options({said})({function_name(fn).rpartition('.')[2]}, ...)"
        )


def _time_left_s(fn: object, timeout: float | None, deadline: float | None) -> float | None:
    """Return the time a job has, in seconds; raise TimeoutError when it is over, before anything is built for it."""
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
    """Make a function one whose calls are awaited and run in a lane, as by `offload` with the same options.

    `@offloaded` or `@offloaded(lane="io", timeout=2)`. The function itself stays reachable as `__wrapped__`.
    """
    how = Offload(lane, timeout, None, key, retries, priority)

    def decorate(fn: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, Any]]:
        check_plain(fn)

        @functools.wraps(fn)
        async def call(*args: Any, **kwargs: Any) -> Any:
            return await how._begin(undecorated, args, kwargs)

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
        if is_interactive() and self._fn.__module__ == "__main__":
            # by value; and the decorated one, which holds this, cannot be made before it
            return identity, (self._fn,)
        return getattr, (self._decorated, "__wrapped__")


def statistics() -> dict[str, LaneStatistics]:
    """The counts, times and bytes of each lane of the running loop that has been used."""
    lanes = present_lanes(asyncio.get_running_loop())
    return {} if lanes is None else lanes.statistics()
