"""A plain ASGI application, no framework: /, /json and /stream. Serve it with `penstock serve examples.app:app`."""

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

TEXT = [(b"content-type", b"text/plain")]
JSON = [(b"content-type", b"application/json")]


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """Answer one HTTP request, or confirm the begin and the end of the lifespan."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    elif scope["type"] == "http":
        await ROUTES.get(scope["path"], not_found)(send)


async def hello(send: Send) -> None:
    await answer(send, 200, TEXT, b"Hello from penstock\n")


async def loop_name(send: Send) -> None:
    kind = type(asyncio.get_running_loop())
    await answer(send, 200, JSON, json.dumps({"loop": f"{kind.__module__}.{kind.__qualname__}"}).encode())


async def count(send: Send) -> None:
    """Send ten lines, one chunk each, 50 ms apart: try `curl -N`."""
    await send({"type": "http.response.start", "status": 200, "headers": TEXT})
    for number in range(1, 11):
        await send({"type": "http.response.body", "body": b"line %d\n" % number, "more_body": True})
        await asyncio.sleep(0.05)
    await send({"type": "http.response.body", "body": b""})


async def not_found(send: Send) -> None:
    await answer(send, 404, TEXT, b"no such page\n")


async def answer(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


async def lifespan(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


ROUTES = {"/": hello, "/json": loop_name, "/stream": count}
