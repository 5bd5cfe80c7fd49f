"""A service that draws thumbnails in the lane `cpu`; `/lane` tells the lane's figures. It knows of no cluster."""

import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import penstock
from penstock.executors import statistics

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
SIDE, MOST_STEPS = 48, 200


async def app(scope: Message, receive: Callable[[], Awaitable[Message]], send: Send) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["path"].startswith("/thumbnail/"):
        number = int(scope["path"].rpartition("/")[2])
        points, process = await penstock.offload(thumbnail, number)
        await answer(send, {"points": points, "process": process})
    else:
        await answer(send, figures())


def thumbnail(number: int) -> tuple[int, int]:
    """Return how many points of a part of the plane are in the Mandelbrot set, and the process that counted them."""
    corner = complex(-1.5 + number / 8, -1)
    inside = sum(is_inside(corner + complex(x, y) / SIDE) for y in range(SIDE) for x in range(SIDE))
    return inside, os.getpid()


def is_inside(point: complex) -> bool:
    value = 0j
    for _ in range(MOST_STEPS):
        if abs(value) > 2:
            return False
        value = value * value + point
    return True


def figures() -> dict[str, Any]:
    lane = statistics().get("cpu")
    return {"lane": "cpu", "ok": lane.completed["ok"] if lane else 0, "process": os.getpid()}


async def answer(send: Send, told: dict[str, Any]) -> None:
    body = json.dumps(told).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
