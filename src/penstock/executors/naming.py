"""What messages call a function."""

from __future__ import annotations

__all__ = ["function_name"]


def function_name(fn: object) -> str:
    """`module.name` of a function; of a method of a built-in type, its name; of another callable, its type's."""
    named = fn if hasattr(fn, "__qualname__") else type(fn)
    module, name = getattr(named, "__module__", None), getattr(named, "__qualname__", repr(fn))
    return f"{module}.{name}" if module else str(name)
