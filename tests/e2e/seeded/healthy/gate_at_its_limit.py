"""A gate that protects a busy loop: twice the load that the loop can serve, and the rest is shed."""

import asyncio
import time

from penstock.errors import Overloaded
from penstock.pressure import Gate

COST_S = 0.004


async def request(gate: Gate) -> None:
    try:
        async with gate:
            end_s = time.monotonic() + COST_S
            while time.monotonic() < end_s:
                pass
            await asyncio.sleep(0)
    except Overloaded:
        pass


async def main() -> None:
    gate = Gate(8, name="http")
    async with asyncio.TaskGroup() as tasks:
        while True:
            tasks.create_task(request(gate))
            tasks.create_task(request(gate))
            await asyncio.sleep(COST_S)


asyncio.run(main())
