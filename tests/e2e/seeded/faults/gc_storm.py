"""A fault: each request collects garbage in a large heap of cycles."""

import asyncio
import gc
from typing import Any


def cycle() -> list[Any]:
    found: list[Any] = [{"a": 1}]
    found.append(found)
    return found


HEAP = [cycle() for _ in range(700_000)]


async def main() -> None:
    while True:
        gc.collect()
        await asyncio.sleep(0.05)


asyncio.run(main())
