"""No fault: a program with short steps all the time, to be stopped from outside."""

import asyncio
import time

STEP_S = 0.02


async def main() -> None:
    while True:
        end_s = time.monotonic() + STEP_S
        while time.monotonic() < end_s:
            pass
        await asyncio.sleep(0.001)


asyncio.run(main())
