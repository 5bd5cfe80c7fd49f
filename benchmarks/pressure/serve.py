"""A service on uvicorn, guarded as its arm does. Prints its port, then serves until it is killed.

`/bare` goes past what the arm puts around the service: it is how the service's own capacity is found. `/statistics`
tells what penstock's gates, and the loop's own, have counted. SIGUSR2 makes the backend slower, or as fast as before.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import signal
import sys

import uvicorn

from benchmarks.net.listener import listen_anywhere
from benchmarks.pressure.arms import ARMS
from benchmarks.pressure.services import SERVICES, App, Message, Receive, Send, answer

__all__ = ["main"]

KEEP_ALIVE_S = 60


def routed(guarded: App, bare: App) -> App:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        path = scope.get("path")
        if path == "/bare":
            await bare(scope, receive, send)
        elif path == "/statistics":
            await _tell(send)
        else:
            await guarded(scope, receive, send)

    return app


async def _tell(send: Send) -> None:
    from penstock.pressure import loop_statistics
    from penstock.pressure.registry import statistics

    known = {name: dataclasses.asdict(found) for name, found in statistics().items()}
    known["the loop"] = dataclasses.asdict(loop_statistics())
    body = json.dumps(known, default=str).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _as_penstock_serves(config: uvicorn.Config) -> None:
    """uvicorn's protocol says what is answered to who is turned away; a penstock that has no such thing does without."""
    from penstock.integrations import refusing

    config.load()
    if hasattr(refusing, "refuse_unread"):
        refusing.refuse_unread(config)


def main() -> None:
    arm, service = ARMS[sys.argv[1]], SERVICES[sys.argv[2]]()
    loop = arm.loop()
    asyncio.set_event_loop(loop)
    bare = answer(service)
    config = uvicorn.Config(
        routed(arm.guard(bare), bare),
        http="httptools",
        ws="none",
        lifespan="off",
        log_level="error",
        access_log=False,
        limit_concurrency=arm.limit_concurrency,
        timeout_keep_alive=KEEP_ALIVE_S,
    )
    if sys.argv[1].startswith("penstock"):
        _as_penstock_serves(config)
    loop.add_signal_handler(signal.SIGUSR2, service.turn)
    listener = listen_anywhere()
    print(listener.getsockname()[1], flush=True)
    loop.run_until_complete(uvicorn.Server(config).serve(sockets=[listener]))


if __name__ == "__main__":
    main()
