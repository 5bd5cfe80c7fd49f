"""The schedule of a virtual loop: the order of a turn's callbacks, drawn from a seed, and cancellation by moments.

It sees handles and tasks, never the clock or the network.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from penstock.testing.deadlock_report import describe_task

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable
    from random import Random

__all__ = ["Moments", "VirtualFuture", "VirtualTask", "permute", "task_of"]


# asyncio keeps tasks in sets (a TaskGroup's, `all_tasks()`), and a set's order follows from its members' hashes. With
# addresses for hashes, two runs from one seed would cancel a group's children in two orders.


class VirtualTask(asyncio.Task[Any]):
    """A task that hashes by its number on its loop, from 1, and not by its address."""

    def __init__(self, number: int, coro: Any, **options: Any) -> None:
        # before asyncio's __init__, which puts the task into a set
        self.number = number
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self.number


class VirtualFuture(asyncio.Future[Any]):
    """A future that hashes by its number on its loop, from 1, and not by its address."""

    def __init__(self, number: int, *, loop: asyncio.AbstractEventLoop) -> None:
        self.number = number
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self.number


def task_of(handle: Any) -> asyncio.Task[Any] | None:
    """Return the task whose step the handle runs; None for a plain callback."""
    callback = handle._callback
    owner = getattr(callback, "__self__", None)
    if isinstance(owner, asyncio.Task) and getattr(callback, "__name__", "") != "cancel":
        return owner
    return None


def permute(ready: deque[Any], dice: Random) -> None:
    """Put a turn's handles into another order, drawn from `dice`.

    Steps of tasks may come in any order: asyncio promises no order between two woken tasks. Plain callbacks keep theirs
    among each other: `call_soon` promises it, and a schedule that broke the promise would report correct programs.
    """
    handles = list(ready)
    steps = [handle for handle in handles if task_of(handle) is not None]
    if not steps:
        return
    plain = [handle for handle in handles if task_of(handle) is None]
    dice.shuffle(steps)
    ready.clear()
    while steps and plain:
        # each way to merge the two rows is equally likely
        side = steps if dice.random() * (len(steps) + len(plain)) < len(steps) else plain
        ready.append(side.pop() if side is steps else side.pop(0))
    ready.extend(reversed(steps) if steps else plain)


class Moments:
    """The moments at which a task can be cancelled: counted, and used to cancel tasks at planned ones.

    Each step of a task has two: just before it, when the task is woken and does not run yet, and just after it, when
    the task waits again. Moments are numbered from 1 over all tasks but the main one, or for one task alone.
    """

    def __init__(self) -> None:
        self.count = 0
        self.cancelled: list[str] = []
        self.wanted: Callable[[asyncio.Task[Any]], bool] | None = None
        self.offered: list[int] = []
        self.failed: list[asyncio.Task[Any]] = []
        self._main: asyncio.Task[Any] | None = None
        self._planned: set[int] = set()
        self._planned_of: dict[asyncio.Task[Any], set[int]] = {}
        self._count_of: dict[asyncio.Task[Any], int] = {}

    def plan(self, number: int, task: asyncio.Task[Any] | None) -> None:
        """Plan a cancellation at a moment: of the task's own moments, or of all tasks' for None. Raises ValueError."""
        if number < 1:
            raise ValueError(f"cancel_at({number!r}): moments are numbered from 1")
        if task is None:
            self._planned.add(number)
        else:
            self._planned_of.setdefault(task, set()).add(number)

    def exclude(self, main: asyncio.Task[Any]) -> None:
        """Exclude the main task: it is counted and cancelled only by a plan of its own."""
        self._main = main

    def run(self, handle: Any) -> None:
        """Run a handle, with the moments before and after it if it is a task's step."""
        task = task_of(handle)
        if task is None:
            handle._run()
            return
        if not task.done():
            self._pass(task)
        handle._run()
        if not task.done():
            self._pass(task)
        elif task is not self._main and not task.cancelled() and _is_unretrieved(task):
            self.failed.append(task)

    def unretrieved(self) -> BaseException | None:
        """Return the first task exception that was never retrieved; asyncio logs it when the task is collected."""
        return next((task.exception() for task in self.failed if _is_unretrieved(task)), None)

    def _pass(self, task: asyncio.Task[Any]) -> None:
        if task in self._planned_of:
            self._count_of[task] = number = self._count_of.get(task, 0) + 1
            if number in self._planned_of[task]:
                self._cancel(number, task)
        if task is self._main:
            return
        self.count += 1
        if self.wanted is not None and self.wanted(task):
            self.offered.append(self.count)
        if self.count in self._planned:
            self._cancel(self.count, task)

    def _cancel(self, number: int, task: asyncio.Task[Any]) -> None:
        self.cancelled.append(f"{describe_task(task)}, cancelled at moment {number}")
        task.cancel()


def _is_unretrieved(task: asyncio.Task[Any]) -> bool:
    return bool(getattr(task, "_log_traceback", False))
