"""A fault: a coroutine is made and not awaited."""

import asyncio


async def save() -> None:
    await asyncio.sleep(0)


async def main() -> None:
    while True:
        save()
        await asyncio.sleep(0.1)


asyncio.run(main())
