"""A bound on the tasks that live in one loop: beyond it the loop warns, or refuses, or has `spawn_when_free` wait.

Counting is not done here: who counts gives `live()`, and says by `want_room` when there is room again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Any

from penstock.errors import Overloaded

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CountedTasks", "TaskLimit"]

logger = logging.getLogger("penstock.pressure")

WARN_EVERY_S = 10.0


class TaskLimit:
    """At most `most` tasks in a loop, or what is done about it.

    `live()` counts them; `want_room(callback)` has the callback called from time to time while there are fewer, and
    takes None. `busiest()` says in words where most of them were made.
    """

    def __init__(
        self,
        most: int,
        full: str,
        *,
        live: Callable[[], int],
        want_room: Callable[[Callable[[], None] | None], None],
        busiest: Callable[[], str] = str,
    ) -> None:
        self.most, self.live = most, live
        self.refused = self.exceeded = 0
        self._sheds_new = full == "shed"
        self._want_room, self._busiest = want_room, busiest
        self._waiters: deque[asyncio.Future[None]] = deque()
        # told that there is room, and not there yet
        self._woken = 0
        self._warned_s = -WARN_EVERY_S

    @property
    def waiting(self) -> int:
        """How many wait for room."""
        return len(self._waiters)

    def on_full(self, coro: Any) -> None:
        """A task is about to be made of `coro` although `most` live. Raises Overloaded if that is refused."""
        if not self._sheds_new:
            self.exceeded += 1
            self._warn()
            return
        self.refused += 1
        # never to be awaited, and nobody need hear of that
        if hasattr(coro, "close"):
            coro.close()
        live = self.live()
        message = f"{live} tasks live in this loop, of at most {self.most} (pressure.max_tasks): no task is made"
        raise Overloaded(message, reason="tasks", queued=live, limit=self.most)

    def _warn(self) -> None:
        now_s = monotonic()
        if now_s - self._warned_s < WARN_EVERY_S:
            return
        self._warned_s = now_s
        busiest = self._busiest()
        made = f"; most were made at {busiest}" if busiest else ""
        logger.warning("%d tasks live in the loop, of at most %d (pressure.max_tasks)%s", self.live(), self.most, made)

    async def room(self) -> None:
        """Wait until fewer than `most` tasks live and all who came before have been told; at once if they do."""
        while self.live() + self._woken >= self.most or self._waiters:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            self._want_room(self._on_room)
            try:
                await waiter
            finally:
                self._leave(waiter)
            if self.live() < self.most:
                return

    def _leave(self, waiter: asyncio.Future[None]) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)
            if not self._waiters:
                self._want_room(None)
        else:
            self._woken -= 1

    def _on_room(self) -> None:
        for _ in range(self.most - self.live() - self._woken):
            if not self._waiters:
                break
            waiter = self._waiters.popleft()
            self._woken += 1
            if not waiter.done():
                waiter.set_result(None)
        if not self._waiters:
            self._want_room(None)


class CountedTasks:
    """Counts a loop's tasks by a task hook, where no native loop does."""

    def __init__(self) -> None:
        self._live = 0
        self._on_room: Callable[[], None] | None = None
        self.limit: TaskLimit | None = None

    def live(self) -> int:
        """How many have been made and have not ended."""
        return self._live

    def want_room(self, on_room: Callable[[], None] | None) -> None:
        """Have it called at the end of each task, until told None."""
        self._on_room = on_room

    def hook_before(self, former: Callable[..., Any] | None) -> Callable[..., Any]:
        """What `loop.set_task_hook` takes; `former` is the hook that was there, and is asked after it."""

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
