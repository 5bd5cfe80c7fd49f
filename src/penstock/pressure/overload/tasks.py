"""A bound on the tasks that live in one loop: beyond it the loop warns, sheds, or has `spawn_when_free` wait.

The tasks are counted elsewhere: the counter gives `live()`, and calls back by `want_room` when there is room again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from time import monotonic
from typing import TYPE_CHECKING, Any

from penstock.errors import Overloaded

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MOST_WAITING", "CountedTasks", "TaskLimit"]

logger = logging.getLogger("penstock.pressure")

# callers that may wait for room in one loop
MOST_WAITING = 10_000
WARN_EVERY_S = 10.0


class TaskLimit:
    """A bound of `most` tasks in a loop. `full` is the action beyond it: "warn", "wait" or "shed".

    `live()` counts the tasks; `want_room(callback)` has the callback called from time to time while there are fewer
    than `most`, until it is given None. `busiest()` names the sites of most live tasks. `most_waiting` bounds the
    callers of `room()` that wait.
    """

    def __init__(
        self,
        most: int,
        full: str,
        *,
        live: Callable[[], int],
        want_room: Callable[[Callable[[], None] | None], None],
        busiest: Callable[[], str] = str,
        most_waiting: int = MOST_WAITING,
    ) -> None:
        self.most, self.live, self.most_waiting = most, live, most_waiting
        self.refused = self.exceeded = 0
        self._sheds_new = full == "shed"
        self._want_room, self._busiest = want_room, busiest
        # oldest first; a woken waiter keeps its place until it runs, finds room, and goes
        self._waiters: OrderedDict[_Waiter, None] = OrderedDict()
        self._woken_count = 0
        self._warned_s = -WARN_EVERY_S

    @property
    def waiting(self) -> int:
        """The number of callers that wait for room and have not been woken."""
        return len(self._waiters) - self._woken_count

    def on_full(self, coro: Any) -> None:
        """Warn that a task is about to be made of `coro` beyond the bound, or close it and raise Overloaded."""
        if not self._sheds_new:
            self.exceeded += 1
            self._warn()
            return
        # never to be awaited, and without asyncio's warning
        if hasattr(coro, "close"):
            coro.close()
        live = self.live()
        raise self._shed(
            f"{live} tasks live in this loop, of at most {self.most} (pressure.max_tasks): no task is made",
            live,
            self.most,
        )

    def _shed(self, message: str, queued: int, limit: int) -> Overloaded:
        self.refused += 1
        return Overloaded(message, reason="tasks", queued=queued, limit=limit)

    def _warn(self) -> None:
        now_s = monotonic()
        if now_s - self._warned_s < WARN_EVERY_S:
            return
        self._warned_s = now_s
        busiest = self._busiest()
        made = f"; most were made at {busiest}" if busiest else ""
        logger.warning("%d tasks live in the loop, of at most %d (pressure.max_tasks)%s", self.live(), self.most, made)

    async def room(self) -> None:
        """Wait until fewer than `most` tasks live: first come, first served. The caller makes its task at once.

        Raises Overloaded, reason `tasks`, if `most_waiting` callers wait already.
        """
        if not self._waiters and self.live() < self.most:
            return
        count = len(self._waiters)
        if count >= self.most_waiting:
            raise self._shed(
                f"{count} callers wait for room for a task, and at most {self.most_waiting} may: no task is made",
                count,
                self.most_waiting,
            )
        waiter = _Waiter()
        self._waiters[waiter] = None
        self._want_room(self._on_room)
        try:
            await self._served(waiter)
        finally:
            self._remove(waiter)

    async def _served(self, waiter: _Waiter) -> None:
        """Wait until the waiter is the first and finds room. It keeps its place if another task took the room."""
        while True:
            await waiter.woken()
            if self.live() < self.most and next(iter(self._waiters)) is waiter:
                return
            waiter.is_woken = False
            self._woken_count -= 1
            self._on_room()

    def _remove(self, waiter: _Waiter) -> None:
        del self._waiters[waiter]
        if waiter.is_woken:
            self._woken_count -= 1
            if waiter.is_cancelled:
                # the room that it was woken for is the next waiter's
                self._on_room()
        if not self._waiters:
            self._want_room(None)

    def _on_room(self) -> None:
        """Wake as many waiters as there is room for, oldest first."""
        free = self.most - self.live() - self._woken_count
        if free <= 0:
            return
        # woken waiters are few, and are the oldest
        for waiter in self._waiters:
            if not waiter.is_woken:
                waiter.wake()
                self._woken_count += 1
                free -= 1
                if free == 0:
                    return


class _Waiter:
    """The place of one caller of `room()`."""

    __slots__ = ("_future", "is_cancelled", "is_woken")

    def __init__(self) -> None:
        self._future: asyncio.Future[None] | None = None
        # since it was last woken it has not found the room taken
        self.is_woken = False
        self.is_cancelled = False

    async def woken(self) -> None:
        """Wait for `wake`."""
        if self.is_woken:
            return
        self._future = asyncio.get_running_loop().create_future()
        try:
            await self._future
        except BaseException:
            self.is_cancelled = True
            raise

    def wake(self) -> None:
        """Wake the caller."""
        self.is_woken = True
        if self._future is not None and not self._future.done():
            self._future.set_result(None)


class CountedTasks:
    """A count of a loop's tasks by a task hook, for loops without the native count."""

    def __init__(self) -> None:
        self._live = 0
        self._on_room: Callable[[], None] | None = None
        self.limit: TaskLimit | None = None

    def live(self) -> int:
        """Return the number of tasks that were made and have not ended."""
        return self._live

    def want_room(self, on_room: Callable[[], None] | None) -> None:
        """Have `on_room` called at the end of each task; None ends that."""
        self._on_room = on_room

    def hook_before(self, former: Callable[..., Any] | None) -> Callable[..., Any]:
        """Return a hook for `loop.set_task_hook`; it calls `former`, the hook that was there."""

        def hook(loop: Any, coro: Any, make: Callable[..., Any], **kwargs: Any) -> Any:
            if self.limit is not None and self._live >= self.limit.most:
                self.limit.on_full(coro)
            task = make(loop, coro, **kwargs) if former is None else former(loop, coro, make, **kwargs)
            self._live += 1
            task.add_done_callback(self._ended)
            return task

        return hook

    def _ended(self, task: Any) -> None:
        self._live -= 1
        if self._on_room is not None:
            self._on_room()
