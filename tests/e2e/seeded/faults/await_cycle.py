"""A fault: two tasks wait for each other."""

import asyncio

TASKS: list[asyncio.Task[None]] = []


async def wait_for(index: int) -> None:
    await asyncio.sleep(0.01)
    await TASKS[index]


async def main() -> None:
    TASKS.append(asyncio.create_task(wait_for(1), name="orders"))
    TASKS.append(asyncio.create_task(wait_for(0), name="stock"))
    while True:
        await asyncio.sleep(0.05)


asyncio.run(main())
