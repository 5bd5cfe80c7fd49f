"""`run`: a program from start to end on a virtual loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from penstock.testing.virtualloop import VirtualLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["run", "run_on"]

T = TypeVar("T")


def run(
    main: Coroutine[Any, Any, T] | Callable[[], Coroutine[Any, Any, T]],
    *,
    seed: int | None = None,
    cancel_at: int | None = None,
    **options: Any,
) -> T:
    """Run a coroutine (or what a call of `main` returns) to its end on a `VirtualLoop`, as `asyncio.run` does.

    `seed` decides the schedule; `cancel_at` cancels at that moment whichever task but the main one is at its turn, as
    `explore` reported it. `options` are the VirtualLoop's. Raises `Deadlock` when nothing can ever happen any more.
    """
    loop = VirtualLoop(seed, **options)
    if cancel_at is not None:
        loop.cancel_at(cancel_at)
    return run_on(loop, main)


def run_on(loop: VirtualLoop, main: Coroutine[Any, Any, T] | Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run to the end on a loop made before, then cancel what is left and close the loop."""
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.get_loop()
        return runner.run(main() if callable(main) else main)
