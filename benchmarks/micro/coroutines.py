"""Rows of tasks: their creation, sleeps, queues and timeouts."""

from __future__ import annotations

import asyncio

from benchmarks.micro.case import FAR_S, Case, Loop

__all__ = ["CASES", "sleep_zero"]

TASKS = 100


async def _return() -> None:
    pass


def create_task(loop: Loop, count: int) -> None:
    async def main() -> None:
        for _ in range(count):
            await loop.create_task(_return())

    loop.run_until_complete(main())


def gather(loop: Loop, count: int) -> None:
    async def main() -> None:
        for _ in range(count):
            await asyncio.gather(*[_return() for _ in range(TASKS)])

    loop.run_until_complete(main())


def sleep_zero_alone(loop: Loop, count: int) -> None:
    async def main() -> None:
        for _ in range(count):
            await asyncio.sleep(0)

    loop.run_until_complete(main())


def sleep_zero(loop: Loop, count: int) -> None:
    async def one() -> None:
        for _ in range(count // TASKS):
            await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.gather(*[one() for _ in range(TASKS)])

    loop.run_until_complete(main())


def queue_ping(loop: Loop, count: int) -> None:
    async def answer(asked: asyncio.Queue[int], answered: asyncio.Queue[int]) -> None:
        for _ in range(count):
            answered.put_nowait(await asked.get())

    async def main() -> None:
        asked, answered = asyncio.Queue[int](), asyncio.Queue[int]()
        task = loop.create_task(answer(asked, answered))
        for index in range(count):
            asked.put_nowait(index)
            await answered.get()
        await task

    loop.run_until_complete(main())


def timeout(loop: Loop, count: int) -> None:
    async def main() -> None:
        for _ in range(count):
            async with asyncio.timeout(FAR_S):
                await asyncio.sleep(0)

    loop.run_until_complete(main())


CASES: dict[str, Case] = {
    "create_task + await": Case(create_task),
    "gather of 100": Case(gather, counted=80),
    "sleep(0), one task": Case(sleep_zero_alone),
    "sleep(0) among 100 tasks": Case(sleep_zero, step=TASKS),
    "asyncio.Queue ping-pong": Case(queue_ping),
    "asyncio.timeout() around sleep(0)": Case(timeout, last=True),
}
