"""A fault: the limit of a gate is far below what the service could do."""

import asyncio

from penstock.errors import Overloaded
from penstock.pressure import Gate


async def request(gate: Gate) -> None:
    try:
        async with gate:
            await asyncio.sleep(0.05)
    except Overloaded:
        pass


async def main() -> None:
    gate = Gate(2, name="http", max_wait_s=0)
    async with asyncio.TaskGroup() as tasks:
        while True:
            tasks.create_task(request(gate))
            await asyncio.sleep(0.005)


asyncio.run(main())
