"""Waits for a condition: in a coroutine, and in a thread. Both fail the test when their patience ends."""

import asyncio
import time
from collections.abc import Callable

__all__ = ["PATIENCE_S", "turns", "until", "wait_until"]

# Generous: it is used up only by a test that fails.
PATIENCE_S = 20.0


async def until(
    condition: Callable[[], object], patience_s: float = PATIENCE_S, *, every_s: float = 0.002, told: str = ""
) -> None:
    """Wait, while the loop runs on, until the condition holds."""
    end_s = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end_s, told or f"not within {patience_s:g} s"
        await asyncio.sleep(every_s)


def wait_until(
    condition: Callable[[], object], patience_s: float = PATIENCE_S, *, every_s: float = 0.002, told: str = ""
) -> None:
    """Block this thread until the condition holds, which other threads or processes bring about."""
    end_s = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end_s, told or f"not within {patience_s:g} s"
        time.sleep(every_s)


async def turns(count: int = 3) -> None:
    """Let the loop run what is ready, and what that makes ready, for `count` turns."""
    for _ in range(count):
        await asyncio.sleep(0)
