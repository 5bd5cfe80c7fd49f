"""A call: a function, its arguments and its options, as a lane receives them.

Workers import this module: it imports neither asyncio nor anything of a lane.
"""

from __future__ import annotations

import functools
import inspect
from operator import index
from types import CodeType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Callable, Hashable

__all__ = ["Call", "check_plain", "function_name"]

ASYNC_FLAGS = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


class Call:
    """One call. Its attributes never change. `timeout_s` is in seconds, None without a limit.

    Calls with the same `key` share one place in the lane's rotation. The larger `priority` runs first where an executor
    knows priorities (a cluster's does). `retries` is the number of times that an idempotent call may run again after a
    lost worker. `context` is the context to run in, None for the worker's own.
    """

    # not a frozen dataclass or a NamedTuple: to make and to read those costs 3 % of an offloaded call
    __slots__ = ("args", "context", "fn", "key", "kwargs", "priority", "retries", "timeout_s")

    def __init__(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        timeout_s: float | None = None,
        key: Hashable = None,
        priority: int = 0,
        retries: int = 0,
        context: contextvars.Context | None = None,
    ) -> None:
        self.fn: Final = fn
        self.args: Final = args
        self.kwargs: Final = kwargs
        self.timeout_s: Final = timeout_s
        self.key: Final = key
        self.priority: Final = priority
        # checked now: raised when a worker is lost, an error would leave the job pending for ever
        self.retries: Final = retries if type(retries) is int else check_whole_number(retries, "retries")
        self.context: Final = context

    def without_arguments(self) -> Call:
        """Return the same call without arguments, for a job whose arguments are pickled."""
        return Call(self.fn, (), None, self.timeout_s, self.key, self.priority, self.retries, None)


def check_whole_number(value: Any, name: str) -> int:
    """Return `value` as an int. Raises TypeError if it is no whole number."""
    try:
        return index(value)
    except TypeError:
        raise TypeError(f"{name} of {value!r}: allowed is a whole number") from None


def function_name(fn: object) -> str:
    """Return the name of a function for messages: `module.name`, or the name of its type for another callable."""
    named = fn if hasattr(fn, "__qualname__") else type(fn)
    module, name = getattr(named, "__module__", None), getattr(named, "__qualname__", repr(fn))
    return f"{module}.{name}" if module else str(name)


def check_plain(fn: object) -> None:
    """Raise TypeError for a coroutine function or an asynchronous generator: only a loop can run their results."""
    # the common case is a function, or a bound method, which has the code of its function
    code = getattr(fn, "__code__", None)
    if code is None:
        while isinstance(fn, functools.partial):
            fn = fn.func
        code = getattr(fn, "__code__", None) or getattr(getattr(type(fn), "__call__", None), "__code__", None)  # noqa: B004
    if isinstance(code, CodeType) and code.co_flags & ASYNC_FLAGS:
        name = function_name(fn)
        raise TypeError(f"{name} is a coroutine function: lanes run plain ones; await it in the loop instead")
