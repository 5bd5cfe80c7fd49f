"""A fault: a lock is never released, as its owner has failed."""

import asyncio


async def owner(lock: asyncio.Lock) -> None:
    await lock.acquire()


async def waiter(lock: asyncio.Lock) -> None:
    async with lock:
        pass


async def abandon() -> None:
    lock = asyncio.Lock()
    await owner(lock)
    await waiter(lock)


async def main() -> None:
    stuck = asyncio.create_task(abandon(), name="orders")
    while not stuck.done():
        await asyncio.sleep(0.05)


asyncio.run(main())
