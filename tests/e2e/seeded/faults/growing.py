"""A fault: tasks are made that never end."""

import asyncio

TASKS: set[asyncio.Task[None]] = set()


async def listen() -> None:
    await asyncio.sleep(3600)


async def main() -> None:
    while True:
        TASKS.add(asyncio.create_task(listen()))
        await asyncio.sleep(0.003)


asyncio.run(main())
