"""Lanes that are busy and keep up: as many callers as threads, and a little more work than one core has."""

import asyncio
import hashlib
import time

import penstock

in_io = penstock.offload.options(lane="io")
in_db = penstock.offload.options(lane="db")


def digest() -> str:
    return hashlib.sha256(b"x" * 2_000_000).hexdigest()


async def waiter() -> None:
    while True:
        await in_db(time.sleep, 0.01)


async def worker() -> None:
    while True:
        await in_io(digest)
        await asyncio.sleep(0.01)


async def main() -> None:
    await asyncio.gather(*[waiter() for _ in range(5)], *[worker() for _ in range(2)])


asyncio.run(main())
