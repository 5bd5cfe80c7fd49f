"""The application that the files beside it deploy: `/` greets, `/events/ticks` is a stream of server-sent events.

Its metrics have a port of their own (METRICS_PORT, 9464), which the parent of all workers answers.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from penstock.integrations.metrics import serve_metrics

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]


async def app(scope: Message, receive: Callable[[], Awaitable[Message]], send: Send) -> None:
    if scope["type"] == "lifespan":
        await receive()
        metrics = serve_metrics(int(os.environ.get("METRICS_PORT", "9464")), host="0.0.0.0")
        await send({"type": "lifespan.startup.complete"})
        await receive()
        # it waits for its thread
        await asyncio.to_thread(metrics.close)
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["path"] == "/events/ticks":
        await ticks(send)
    else:
        await answer(send, f"{scope['scheme']} from {(scope['client'] or ['?'])[0]}\n".encode())


async def ticks(send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    for number in range(10):
        await send({"type": "http.response.body", "body": b"data: %d\n\n" % number, "more_body": True})
        await asyncio.sleep(1)
    await send({"type": "http.response.body", "body": b""})


async def answer(send: Send, body: bytes) -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
