"""A fault: tasks fail and no code looks at them."""

import asyncio


async def save() -> None:
    await asyncio.sleep(0)
    raise ValueError("the text of an exception")


async def main() -> None:
    while True:
        asyncio.create_task(save())  # noqa: RUF006 (the fault)
        await asyncio.sleep(0.1)


asyncio.run(main())
