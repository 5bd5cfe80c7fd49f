"""A fault: a handler sleeps in the loop's thread."""

import asyncio
import time


async def handler() -> None:
    time.sleep(0.3)


async def main() -> None:
    while True:
        await handler()
        await asyncio.sleep(0.2)


asyncio.run(main())
