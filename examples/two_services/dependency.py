"""A dependency of limited capacity: each line that arrives costs 100 ms of one of SLOTS places, and is sent back.

Whatever is more waits here, however long: the dependency itself refuses nothing. `python dependency.py PORT SLOTS`.
"""

import asyncio
import sys
from functools import partial

WORK_S = 0.1


async def serve(slots: asyncio.Semaphore, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        async with slots:
            await asyncio.sleep(WORK_S)
        writer.write(line)
    writer.close()


async def main(port: int, slots: int) -> None:
    server = await asyncio.start_server(partial(serve, asyncio.Semaphore(slots)), "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
