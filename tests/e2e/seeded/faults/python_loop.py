"""A fault: Python code computes in the loop's thread."""

import asyncio


def spin(count: int) -> int:
    total = 0
    for number in range(count):
        total += number
    return total


async def main() -> None:
    while True:
        spin(20_000_000)
        await asyncio.sleep(0.2)


asyncio.run(main())
