"""A fault: C code in another thread keeps the GIL, and the loop waits for it."""

import asyncio
import time


def compute() -> None:
    while True:
        sum(range(60_000_000))
        time.sleep(0.1)


async def main() -> None:
    work = asyncio.create_task(asyncio.to_thread(compute))
    while not work.done():
        await asyncio.sleep(0.005)


asyncio.run(main())
