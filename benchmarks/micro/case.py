"""A case is the body of a micro row, with the number of operations that it can run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["FAR_S", "Case", "Loop", "nothing"]

Loop = asyncio.AbstractEventLoop
FAR_S = 60.0  # a timer that never fires in a run


@dataclass(frozen=True, slots=True)
class Case:
    """The body of a row; a run has a multiple of `step` operations.

    A body may return its own time in ns, without its preparation. A body with `once` is too long to repeat: it runs
    as many operations as it needs, and returns the time of one. A body with `last` may leave something on the loop, as
    timers that are cancelled and not yet due: its worker ends after it. About `counted` operations are enough for
    counts of instructions and system calls; none are counted with 0.
    """

    run: Callable[[Loop, int], int | None]
    step: int = 1
    once: bool = False
    last: bool = False
    counted: int = 2000


def nothing(*_: object) -> None:
    """Be a callback that does nothing."""
