"""Tasks and futures that hash by their number, not their address.

asyncio keeps tasks in sets (a TaskGroup's, `all_tasks()`), and a set's order is its members' hashes: with addresses,
two runs from one seed would cancel a group's children in two orders.
"""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["VirtualFuture", "VirtualTask"]


class VirtualTask(asyncio.Task[Any]):
    """A task with a number of its own loop: the first is 1."""

    def __init__(self, number: int, coro: Any, **options: Any) -> None:
        # before asyncio's own, which puts the task into a set
        self.number = number
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self.number


class VirtualFuture(asyncio.Future[Any]):
    """A future with a number of its own loop."""

    def __init__(self, number: int, *, loop: asyncio.AbstractEventLoop) -> None:
        self.number = number
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self.number
