"""The tour's service, plain ASGI: / and /json of app.py, /order costs CPU time, /stall and /leak are faults.

Serve it from `examples` with `penstock serve tour.service:app`.
"""

import asyncio
import json
import time

from app import TEXT, Message, Receive, Send, answer, hello, lifespan, loop_name, not_found

LINES = json.dumps([{"sku": f"A{number}", "price": number * 0.25, "count": number % 7} for number in range(700)])
# the fault: tasks that are kept and never end
subscribers: list[asyncio.Task[None]] = []


async def app(scope: Message, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    elif scope["type"] == "http":
        await ROUTES.get(scope["path"], not_found)(send)


async def order(send: Send) -> None:
    """Parse an order of 700 lines: some tenths of a millisecond of CPU time, several times."""
    total = 0.0
    for _ in range(6):
        total = sum(line["price"] * line["count"] for line in json.loads(LINES))
    await answer(send, 200, TEXT, f"{total:.2f}: thanks from penstock\n".encode())


async def stall(send: Send) -> None:
    time.sleep(0.5)  # noqa: ASYNC251 (the fault)
    await answer(send, 200, TEXT, b"thanks from penstock\n")


async def leak(send: Send) -> None:
    subscribers.append(asyncio.create_task(wait_for_news()))
    await answer(send, 200, TEXT, b"thanks from penstock\n")


async def wait_for_news() -> None:
    await asyncio.get_running_loop().create_future()


ROUTES = {"/": hello, "/json": loop_name, "/order": order, "/stall": stall, "/leak": leak}
