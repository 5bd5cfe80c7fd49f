"""A call: a function, its arguments and its options, as a lane receives them.

Workers import this module: it imports neither asyncio nor anything of a lane.
"""

from __future__ import annotations

import functools
import inspect
from types import CodeType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Callable, Hashable

__all__ = ["Call", "check_plain", "function_name"]

ASYNC_FLAGS = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


class Call(NamedTuple):
    """One call. `timeout_s` is in seconds, None without a limit.

    Calls with the same `key` share one place in the lane's rotation. The larger `priority` runs first where an executor
    knows priorities (a cluster's does). `retries` is the number of times that an idempotent call may run again after a
    lost worker. `context` is the context to run in, None for the worker's own.
    """

    fn: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] | None = None
    timeout_s: float | None = None
    key: Hashable = None
    priority: int = 0
    retries: int = 0
    context: contextvars.Context | None = None

    def without_arguments(self) -> Call:
        """Return the same call without arguments, for a job whose arguments are pickled."""
        return Call(self.fn, (), None, self.timeout_s, self.key, self.priority, self.retries, None)


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
