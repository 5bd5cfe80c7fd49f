"""The jobs that the workers import; the module has no other content, so that its import is fast."""

from __future__ import annotations

from typing import Any

__all__ = ["burn", "identity", "size"]


def identity(value: Any) -> Any:
    return value


def size(data: Any) -> int:
    return len(data)


def burn(count: int) -> int:
    """Compute in Python for `count` steps, holding the GIL."""
    total = 0
    for number in range(count):
        total += number * number
    return total
