"""Ten thousand consumers of queues, and producers that feed them at a steady rate."""

import asyncio


async def consumer(queue: asyncio.Queue[int], results: list[int]) -> None:
    while True:
        results[await queue.get()] += 1


async def producer(queues: list[asyncio.Queue[int]], first: int) -> None:
    number = first
    while True:
        for _ in range(100):
            number = (number + 7) % len(queues)
            queues[number].put_nowait(number)
        await asyncio.sleep(0.02)


async def main() -> None:
    queues: list[asyncio.Queue[int]] = []
    results = [0] * 10_000
    async with asyncio.TaskGroup() as tasks:
        for count in range(10_000):
            queues.append(asyncio.Queue())
            tasks.create_task(consumer(queues[-1], results))
            # a start in steps, as clients arrive
            if count % 100 == 0:
                await asyncio.sleep(0)
        for first in range(3):
            tasks.create_task(producer(queues, first))


asyncio.run(main())
