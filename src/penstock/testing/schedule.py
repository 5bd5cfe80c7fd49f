"""Who runs first: the order of a turn's callbacks, chosen by a seed, and tasks cancelled at a counted moment.

Sees handles and tasks, never the clock or the network.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from penstock.testing.deadlock_report import wait_of

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable
    from random import Random

__all__ = ["Moments", "permute", "stepping"]


def stepping(handle: Any) -> asyncio.Task[Any] | None:
    """The task whose step this handle runs; None for a plain callback."""
    callback = handle._callback
    owner = getattr(callback, "__self__", None)
    if isinstance(owner, asyncio.Task) and getattr(callback, "__name__", "") != "cancel":
        return owner
    return None


def permute(ready: deque[Any], dice: Random) -> None:
    """Give a turn's handles another order.

    Steps of tasks may come in any order, as nobody may rely on who of two woken tasks runs first. Plain callbacks keep
    theirs among each other: `call_soon` promises it, and a schedule that breaks the promise would accuse the innocent.
    """
    handles = list(ready)
    steps = [handle for handle in handles if stepping(handle) is not None]
    if not steps:
        return
    plain = [handle for handle in handles if stepping(handle) is None]
    dice.shuffle(steps)
    ready.clear()
    while steps and plain:
        # of all ways to lay one row into the other, each is as likely as any
        side = steps if dice.random() * (len(steps) + len(plain)) < len(steps) else plain
        ready.append(side.pop() if side is steps else side.pop(0))
    ready.extend(reversed(steps) if steps else plain)


class Moments:
    """Counts the moments at which a task can be cancelled, and cancels it at those asked for.

    Each step of a task has two: just before it, when the task has been woken but does not run yet, and just after it,
    when it waits again. Moments are numbered from 1 over all tasks but the main one, or apart for one task.
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
        """Cancel at this moment: of this task's own, or of all but the main one's."""
        if number < 1:
            raise ValueError(f"cancel_at({number!r}): moments are numbered from 1")
        if task is None:
            self._planned.add(number)
        else:
            self._planned_of.setdefault(task, set()).add(number)

    def spare(self, main: asyncio.Task[Any]) -> None:
        """Never count or cancel this task, the main one, unless it is asked for by name."""
        self._main = main

    def run(self, handle: Any) -> None:
        """Run a handle, with the moments before and after it if it is a task's step."""
        task = stepping(handle)
        if task is None:
            handle._run()
            return
        if not task.done():
            self._pass(task)
        handle._run()
        if not task.done():
            self._pass(task)
        elif task is not self._main and not task.cancelled() and _is_unread(task):
            self.failed.append(task)

    def unread(self) -> BaseException | None:
        """The first failure of a task that nobody has asked for, as asyncio logs it when the task is collected."""
        return next((task.exception() for task in self.failed if _is_unread(task)), None)

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
        self.cancelled.append(f"{wait_of(task)}, cancelled at moment {number}")
        task.cancel()


def _is_unread(task: asyncio.Task[Any]) -> bool:
    return bool(getattr(task, "_log_traceback", False))
