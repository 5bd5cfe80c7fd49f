"""A fault: more requests arrive than the loop can serve, in steps that are short each."""

import asyncio
import time


async def request() -> None:
    for _ in range(4):
        end_s = time.monotonic() + 0.004
        while time.monotonic() < end_s:
            pass
        await asyncio.sleep(0)


async def client() -> None:
    while True:
        await request()


async def main() -> None:
    await asyncio.gather(*[client() for _ in range(100)])


asyncio.run(main())
