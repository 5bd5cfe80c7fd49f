"""uvicorn with httptools and a plaintext app on an arm's loop. Prints its port, then serves until it is killed."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn

from benchmarks.arms import new_loop
from benchmarks.net.listener import listen_anywhere

__all__ = ["main", "plaintext"]

BODY = b"Hello, World!"
START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/plain"), (b"content-length", str(len(BODY)).encode())],
}


async def plaintext(scope: object, receive: object, send: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
    await send(START)
    await send({"type": "http.response.body", "body": BODY})


def main() -> None:
    loop = new_loop(sys.argv[1])
    asyncio.set_event_loop(loop)
    config = uvicorn.Config(
        plaintext,
        http="httptools",
        lifespan="off",
        log_level="warning",
        access_log=False,
    )
    listener = listen_anywhere()
    print(listener.getsockname()[1], flush=True)
    loop.run_until_complete(uvicorn.Server(config).serve(sockets=[listener]))


if __name__ == "__main__":
    main()
