"""The service that runs twice: each request asks the dependency once. `/gate` tells the gate's figures as JSON.

It knows neither the dependency's capacity nor the other service: `penstock serve --limit auto` finds its limit.
"""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from penstock.pressure import statistics

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

idle: list[Streams] = []


async def app(scope: Message, receive: Callable[[], Awaitable[Message]], send: Send) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["path"] == "/gate":
        await answer(send, json.dumps(figures()).encode())
    else:
        await answer(send, await ask(b"price\n"))


async def ask(line: bytes) -> bytes:
    """Ask the dependency over a connection of its own: the gate alone bounds how many there are."""
    reader, writer = idle.pop() if idle else await asyncio.open_connection("127.0.0.1", int(os.environ["DEPENDENCY"]))
    try:
        writer.write(line)
        found = await reader.readline()
    except BaseException:
        writer.close()
        raise
    idle.append((reader, writer))
    return found


def figures() -> dict[str, Any]:
    (gate,) = statistics().values()
    return {
        "limit": gate.limit,
        "inflight": gate.inflight,
        "queued": gate.queued,
        "reason": gate.limit_reason,
        "p50_s": gate.service.p50_s,
    }


async def answer(send: Send, body: bytes) -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
