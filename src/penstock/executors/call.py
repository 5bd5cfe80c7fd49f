"""What messages call a function, and which functions a lane refuses."""

from __future__ import annotations

import functools
import inspect
from types import CodeType

__all__ = ["check_plain", "function_name"]

ASYNC_FLAGS = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


def function_name(fn: object) -> str:
    """`module.name` of a function; of a method of a built-in type, its name; of another callable, its type's."""
    named = fn if hasattr(fn, "__qualname__") else type(fn)
    module, name = getattr(named, "__module__", None), getattr(named, "__qualname__", repr(fn))
    return f"{module}.{name}" if module else str(name)


def check_plain(fn: object) -> None:
    """Raise TypeError for a coroutine function or an asynchronous generator: only a loop can run what it returns."""
    # a function, or a bound method, which has its function's code: the common case, and quick
    code = getattr(fn, "__code__", None)
    if code is None:
        while isinstance(fn, functools.partial):
            fn = fn.func
        code = getattr(fn, "__code__", None) or getattr(getattr(type(fn), "__call__", None), "__code__", None)  # noqa: B004
    if isinstance(code, CodeType) and code.co_flags & ASYNC_FLAGS:
        name = function_name(fn)
        raise TypeError(f"{name} is a coroutine function: lanes run plain ones; await it in the loop instead")
