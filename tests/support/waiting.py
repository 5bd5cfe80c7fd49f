"""Waits for a condition: in a coroutine, and in a thread. Both fail the test when their patience ends."""

import asyncio
import time
from collections.abc import Callable

__all__ = ["PATIENCE_S", "turns", "until", "wait_until"]

# Generous: it is used up only by a test that fails.
PATIENCE_S = 20.0
Told = str | Callable[[], str]


async def until(
    condition: Callable[[], object], patience_s: float = PATIENCE_S, *, every_s: float = 0.002, told: Told = ""
) -> None:
    """Wait, while the loop runs on, until the condition holds."""
    end_s = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end_s, _reason(told, patience_s)
        await asyncio.sleep(every_s)


def wait_until(
    condition: Callable[[], object], patience_s: float = PATIENCE_S, *, every_s: float = 0.002, told: Told = ""
) -> None:
    """Block this thread until the condition holds, which other threads or processes bring about."""
    end_s = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end_s, _reason(told, patience_s)
        time.sleep(every_s)


async def turns(count: int = 3) -> None:
    """Let the loop run what is ready, and what that makes ready, for `count` turns."""
    for _ in range(count):
        await asyncio.sleep(0)


def _reason(told: Told, patience_s: float) -> str:
    return (told() if callable(told) else told) or f"not within {patience_s:g} s"
