"""Clients that send so many requests a second in all, whether or not they are answered: `python load.py PORT PER_S`.

Half of them keep their connections. Each second one line of JSON says what came back, until the process is ended.
"""

import asyncio
import json
import random
import sys
from collections import Counter

CLIENTS = 128
REQUEST = b"GET / HTTP/1.1\r\nhost: shop\r\n"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

counts: Counter[str] = Counter()


async def client(port: int, period_s: float, *, is_kept: bool) -> None:
    loop = asyncio.get_running_loop()
    streams: Streams | None = None
    due_s = loop.time() + random.random() * period_s
    while True:
        await asyncio.sleep(due_s - loop.time())
        # one that is late does not make up for it
        due_s = max(due_s, loop.time()) + random.uniform(0.5, 1.5) * period_s
        try:
            streams = streams or await asyncio.open_connection("127.0.0.1", port)
            may_stay = await ask(*streams, is_kept=is_kept)
        except (OSError, EOFError) as error:
            counts[type(error).__name__] += 1
            may_stay = False
        if streams is not None and not may_stay:
            streams[1].close()
            streams = None


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_kept: bool) -> bool:
    """Send a request and count its answer. Return whether the connection stays open."""
    counts["asked"] += 1
    writer.write(REQUEST + (b"\r\n" if is_kept else b"connection: close\r\n\r\n"))
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
    await reader.readexactly(int(fields[b"content-length"]))
    status = int(head.split()[1])
    counts[str(status)] += 1
    counts["503 with retry-after"] += status == 503 and fields.get(b"retry-after", b"").isdigit()
    return is_kept and fields.get(b"connection") != b"close"


async def main(port: int, per_s: float) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            group.create_task(client(port, CLIENTS / per_s, is_kept=number % 2 == 0))
        while True:
            await asyncio.sleep(1.0)
            print(json.dumps(counts), flush=True)
            counts.clear()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2])))
