"""The cost of semaphores, limiters and bounded groups where tasks wait, beside asyncio's own.

Rows count whole tasks: a pass of one of four tasks that share a permit, or a task started by a full group.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from benchmarks.micro.case import Case, Loop

__all__ = ["HANDOFF", "HANDOFFS", "Asyncios", "Faces", "Penstocks", "handoff_cases"]

WANTING, PLACES = 4, 4
HANDOFF = "a semaphore's hand-off"
LENT = "a limiter's hand-off"
SPAWN = "a task of a full group"
HANDOFFS = (HANDOFF, LENT, SPAWN)


class Asyncios:
    """asyncio's semaphore, and a TaskGroup behind a semaphore as a bounded group."""

    semaphore = limiter = asyncio.Semaphore

    async def spawn_all(self, count: int) -> None:
        semaphore = asyncio.Semaphore(PLACES)

        async def run() -> None:
            try:
                await asyncio.sleep(0)
            finally:
                semaphore.release()

        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                await semaphore.acquire()
                group.create_task(run())


class Penstocks:
    """penstock's semaphore, limiter and bounded group."""

    def __init__(self) -> None:
        # imported here, because the first call of a case is timed to choose the number of calls
        from penstock.pressure import BoundedTaskGroup, CapacityLimiter, Semaphore

        self.semaphore, self.limiter, self.group = Semaphore, CapacityLimiter, BoundedTaskGroup

    async def spawn_all(self, count: int) -> None:
        async def run() -> None:
            await asyncio.sleep(0)

        async with self.group(PLACES) as group:
            for _ in range(count):
                await group.spawn(run)


Faces = Asyncios | Penstocks


def handoff_cases(faces: Faces) -> dict[str, Case]:
    """Return the bodies of the rows for asyncio or penstock."""
    return {
        HANDOFF: Case(partial(_handed_on, faces.semaphore), step=WANTING),
        LENT: Case(partial(_handed_on, faces.limiter), step=WANTING),
        SPAWN: Case(partial(_spawned, faces)),
    }


def _handed_on(kind: Any, loop: Loop, count: int) -> None:
    async def pass_through(permit: Any) -> None:
        for _ in range(count // WANTING):
            async with permit:
                await asyncio.sleep(0)

    async def main() -> None:
        permit = kind(1)
        await asyncio.gather(*(pass_through(permit) for _ in range(WANTING)))

    loop.run_until_complete(main())


def _spawned(faces: Faces, loop: Loop, count: int) -> None:
    loop.run_until_complete(faces.spawn_all(count))
