"""A fault: many callers share a lane of two threads."""

import asyncio
import time

import penstock

in_db = penstock.offload.options(lane="db")


async def caller() -> None:
    while True:
        await in_db(time.sleep, 0.3)


async def main() -> None:
    await asyncio.gather(*[caller() for _ in range(40)])


asyncio.run(main())
