"""The jobs, as the workers import them: nothing else is in this module, so that a worker's start is not ours."""

from __future__ import annotations

from typing import Any

__all__ = ["burn", "identity", "size"]


def identity(value: Any) -> Any:
    return value


def size(data: Any) -> int:
    return len(data)


def burn(count: int) -> int:
    """CPU-bound Python code that holds the GIL, as much each time."""
    total = 0
    for number in range(count):
        total += number * number
    return total
