"""The bodies of the micro rows about tasks, without arms or clocks.

They make tasks by asyncio.create_task, looked up at each call, because some of the arms replace it.
"""

from __future__ import annotations

import asyncio

from benchmarks.micro.case import Case, Loop
from benchmarks.micro.coroutines import sleep_zero
from benchmarks.micro.scheduling import chain_0

__all__ = ["TASK_CASES"]


def create_task(loop: Loop, count: int) -> None:
    async def nothing() -> None:
        pass

    async def main() -> None:
        for _ in range(count):
            await asyncio.create_task(nothing())

    loop.run_until_complete(main())


def future_ping(loop: Loop, count: int) -> None:
    """Make a future, set it by a callback and await it, as a client does for each answer."""

    async def main() -> None:
        for _ in range(count):
            future = loop.create_future()
            loop.call_soon(future.set_result, None)
            await future

    loop.run_until_complete(main())


TASK_CASES: dict[str, Case] = {
    "asyncio.create_task + await": Case(create_task),
    "sleep(0) among 100 tasks": Case(sleep_zero, step=100),
    "future set and awaited": Case(future_ping),
    "call_soon chain, 0 arguments": Case(chain_0),
}
