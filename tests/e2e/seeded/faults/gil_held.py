"""A fault: C code in the loop's thread keeps the GIL."""

import asyncio


async def main() -> None:
    while True:
        sum(range(60_000_000))
        await asyncio.sleep(0.2)


asyncio.run(main())
