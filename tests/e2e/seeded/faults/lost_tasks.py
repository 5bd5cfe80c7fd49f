"""A fault: no code keeps the tasks, and they are collected before they end."""

import asyncio
import gc


async def consume() -> None:
    await asyncio.get_running_loop().create_future()


async def main() -> None:
    while True:
        asyncio.create_task(consume())  # noqa: RUF006 (the fault)
        await asyncio.sleep(0.1)
        gc.collect()


asyncio.run(main())
