# cython: annotation_typing=False, nonecheck=True
"""A call: a function, its arguments and its options, as a lane receives them.

Native where it is built (`call.pxd` has the types), this very source elsewhere. It imports neither asyncio nor anything
of a lane, because workers import it.
"""

from __future__ import annotations

from functools import partial
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE
from operator import index
from types import CodeType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Callable, Hashable

__all__ = ["Call", "check_plain", "function_name"]

ASYNC_FLAGS = CO_COROUTINE | CO_ASYNC_GENERATOR


class Call:
    """One call. Its attributes do not change, but `forget_arguments` removes the arguments.

    `timeout_s` is in seconds, None without a limit. Calls with the same `key` share one place in the lane's rotation.
    The larger `priority` runs first where an executor knows priorities (a cluster's does). `retries` is the number of
    times that an idempotent call may run again after a lost worker. `context` is the context to run in, None for the
    worker's own.
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
        self.fn = fn
        self.args = args
        self.kwargs = kwargs
        self.timeout_s = timeout_s
        self.key = key
        self.priority = priority
        # checked now: raised when a worker is lost, an error would leave the job pending for ever
        self.retries = retries if type(retries) is int else check_whole_number(retries, "retries")
        self.context = context

    def forget_arguments(self) -> None:
        """Release the arguments and the context, once they are pickled."""
        self.args = ()
        self.kwargs = self.context = None


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
        while isinstance(fn, partial):
            fn = fn.func
        code = getattr(fn, "__code__", None) or getattr(getattr(type(fn), "__call__", None), "__code__", None)  # noqa: B004
    if isinstance(code, CodeType) and code.co_flags & ASYNC_FLAGS:
        name = function_name(fn)
        raise TypeError(f"{name} is a coroutine function: lanes run plain ones; await it in the loop instead")
