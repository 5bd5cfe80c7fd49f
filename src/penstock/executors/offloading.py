"""`offload` and its relatives: functions to await calls in a lane, on penstock's loop, on stock asyncio's or uvloop's.

All arguments and keywords of a call belong to the function. The options of the call are set apart from them, by
`offload.options(...)`.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ParamSpec, TypedDict, TypeVar, overload

from penstock.config.converters import nearest
from penstock.executors.call import Call, check_plain, function_name
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
    """The options of `Offload.options`."""

    lane: str
    timeout: float | None
    deadline: float | None
    key: Hashable
    retries: int
    priority: int


@dataclass(frozen=True, slots=True)
class Offload:
    """The options of offloaded calls. An instance is called to offload: `await offload(fn, *args, **kwargs)`.

    `timeout` is in seconds from the call, `deadline` in seconds on the clock of `loop.time()`. The sooner one holds,
    and so does a `penstock.pressure.deadline` around the call. At that time, or when the call is cancelled, the job is
    interrupted. Calls with the same `key` share one place in the lane's rotation. `retries` is the number of times that
    an idempotent job may run again after its worker is lost. The larger `priority` runs first where the lane knows
    priorities (a cluster's does).
    """

    lane: str = "cpu"
    timeout: float | None = None
    deadline: float | None = None
    key: Hashable = None
    retries: int = 0
    priority: int = 0

    async def __call__(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `fn(*args, **kwargs)` in the lane and return its result.

        Raises the exception of `fn`; TimeoutError; Overloaded if the lane is full and sheds the job; WorkerLost if the
        worker died; UnpicklableError if the call or its result cannot be sent; ConfigError if no such lane is declared;
        RuntimeError if the loop's lanes are shut; TypeError for a coroutine function, and for an option among the
        arguments of a function that does not take it.
        """
        if kwargs:
            _check_keywords(fn, kwargs)
        result: T = await self._begin(fn, args, kwargs)
        return result

    def options(self, **changes: Unpack[OffloadOptions]) -> Offload:
        """Return a copy with some options changed: `await offload.options(lane="db", timeout=5)(fn, ...)`.

        Raises TypeError for an unknown option.
        """
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
        if lane.takes_context:
            context = contextvars.copy_context()
        if lane.takes_coroutine_functions:
            # such a lane would return the coroutine as the result; every other lane refuses the function itself
            check_plain(fn)
        if timeout_s is None:
            timeout_s = lane.config.timeout_s
        return lane.begin(
            loop, Call(fn, args, kwargs or None, timeout_s, self.key, self.priority, self.retries, context)
        )


OPTIONS = frozenset(OffloadOptions.__annotations__)
offload = Offload()
_io = Offload(lane="io")


async def to_thread(fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `fn(*args, **kwargs)` in the lane `io`, in a copy of the current context. Return its result.

    Raises as `offload` does.
    """
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
        return  # a C function without a signature
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
    """Return the time that the job has, in seconds. Raises TimeoutError if that is over."""
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
    """Decorate a function so that its calls are awaited and run in a lane, as by `offload` with the same options.

    `@offloaded` or `@offloaded(lane="io", timeout=2)`. `timeout` is in seconds, `retries` the count of further
    runs after a lost worker; a larger `priority` runs first. Returns a coroutine function, whose `__wrapped__` is the
    plain one. Raises TypeError for a coroutine function; its calls raise as `offload` does.
    """
    options = Offload(lane, timeout, None, key, retries, priority)

    def decorate(fn: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, Any]]:
        check_plain(fn)

        @functools.wraps(fn)
        async def call(*args: Any, **kwargs: Any) -> Any:
            return await options._begin(undecorated, args, kwargs)

        undecorated = Undecorated(fn, call)
        return call

    return decorate if fn is None else decorate(fn)


class Undecorated:
    """The function under `@offloaded`, as it is pickled for another process.

    Pickle sends a function by its name, which is that of the decorated function. This one is its `__wrapped__`.
    """

    def __init__(self, fn: Callable[..., Any], decorated: Callable[..., Any]) -> None:
        functools.update_wrapper(self, fn)
        self._fn = fn
        self._decorated = decorated

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._fn(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        if is_interactive() and self._fn.__module__ == "__main__":
            # by value: the decorated function holds this one, and cannot be made before it
            return identity, (self._fn,)
        return getattr, (self._decorated, "__wrapped__")


def statistics() -> dict[str, LaneStatistics]:
    """Return the counts, times and bytes of each lane of the running loop that was used, by name.

    Raises RuntimeError if no loop is running.
    """
    lanes = present_lanes(asyncio.get_running_loop())
    return {} if lanes is None else lanes.statistics()
