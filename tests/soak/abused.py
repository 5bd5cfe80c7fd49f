"""The application that is abused: `/` takes milliseconds, `/work` 10 of them, `/big` is more than anyone buffers."""

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import asdict
from typing import Any

from penstock.pressure import statistics

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
CHUNK, CHUNKS = bytes(1 << 16), 1 << 10


async def app(scope: Message, receive: object, send: Send) -> None:
    if scope["type"] == "http":
        await PATHS[scope["path"]](send)


async def small(send: Send) -> None:
    await asyncio.sleep(0.002)
    await reply(send, b"done\n")


async def work(send: Send) -> None:
    # the gate lets in as many as the backend would take
    await asyncio.sleep(0.01)
    await reply(send, b"done\n")


async def told(send: Send) -> None:
    gates = {name: asdict(found) for name, found in statistics().items()}
    await reply(send, json.dumps(gates, default=str).encode())


async def big(send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    for left in range(CHUNKS - 1, -1, -1):
        await send({"type": "http.response.body", "body": CHUNK, "more_body": left > 0})


async def reply(send: Send, body: bytes) -> None:
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


PATHS: dict[str, Callable[[Send], Awaitable[None]]] = {"/": small, "/work": work, "/big": big, "/statistics": told}
