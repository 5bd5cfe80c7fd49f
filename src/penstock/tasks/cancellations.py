"""The newest cancellations of tasks in this process, each with the task that called `cancel()`.

Names, numbers and places only: a cancel's message may hold data of the program.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.tasks.place import Place

__all__ = ["Cancellation", "CancellationLog", "NamedTask", "cancellations"]

MOST_KEPT = 256


@dataclass(frozen=True, slots=True)
class NamedTask:
    """A task's name, its number (0 if it was not recorded) and the place where it was made (None if unknown)."""

    name: str
    number: int
    site: Place | None


@dataclass(frozen=True, slots=True)
class Cancellation:
    """A call of a task's `cancel()` before the task's end."""

    # on time.monotonic()'s clock, and on time.time()'s
    at_s: float
    wall_time_s: float
    task: NamedTask
    # the task that called, or whose own cancellation was passed on; None: a callback, a signal or other code
    by: NamedTask | None
    # the name of the thread that called
    thread: str
    # the first place in user code; of a callback of asyncio's, the place there
    place: Place | None
    # the names of the canceller, of its own canceller, and so on
    chain: tuple[str, ...]


class CancellationLog:
    """The newest cancellations, numbered in their order. Any thread may call it.

    A cancellation may come from a garbage collection, so in the middle of another call here: the lock is reentrant.
    """

    def __init__(self, limit: int = MOST_KEPT) -> None:
        # whether a loop of this process records cancellations
        self.is_enabled = False
        self._lock = threading.RLock()
        self._kept: deque[tuple[int, Cancellation]] = deque(maxlen=limit)
        self._mark = 0

    def add(self, cancellation: Cancellation) -> None:
        """Keep a cancellation."""
        with self._lock:
            self._mark += 1
            self._kept.append((self._mark, cancellation))

    def mark(self) -> int:
        """Return the number of the newest cancellation."""
        return self._mark

    def since(self, mark: int) -> tuple[list[Cancellation], int]:
        """Return the kept cancellations after a mark, oldest first, and the mark of the newest."""
        with self._lock:
            return [cancellation for number, cancellation in self._kept if number > mark], self._mark

    def forget(self) -> None:
        """Drop the cancellations: in a forked child they are the parent's, and the lock may be held."""
        self._lock = threading.RLock()
        self._kept.clear()
        self._mark = 0


cancellations = CancellationLog()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=cancellations.forget)
