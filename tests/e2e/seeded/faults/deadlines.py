"""A fault: jobs have less time than they take."""

import asyncio
import time
from contextlib import suppress

import penstock

quick = penstock.offload.options(lane="io", timeout=0.05)


async def caller() -> None:
    while True:
        with suppress(TimeoutError):
            await quick(time.sleep, 0.1)
        await asyncio.sleep(0.2)


async def main() -> None:
    await asyncio.gather(*[caller() for _ in range(2)])


asyncio.run(main())
