"""A service on uvicorn, guarded as its arm does. Prints its port, then serves until it is killed.

A second line is the health port, if the arm has one. `/bare` goes past what the arm puts around the service: it is how
the service's own capacity is found. `/statistics` tells what penstock's gates, and the loop's own, have counted.
SIGUSR2 makes the backend slower, or as fast as before.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import signal
import sys
from typing import Any

import uvicorn

from benchmarks.method.trial import base_arm
from benchmarks.net.listener import listen_anywhere
from benchmarks.pressure.arms import ARMS
from benchmarks.pressure.services import SERVICES, App, Message, Receive, Send, answer

__all__ = ["Asked", "Routed", "as_penstock_serves", "main"]

KEEP_ALIVE_S = 60


class Routed:
    """The guarded application, and what goes past its guard."""

    def __init__(self, guarded: App, bare: App) -> None:
        self._guarded = guarded
        self._past: dict[str, App] = {"/bare": bare, "/statistics": _statistics}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        await self._past.get(scope["path"], self._guarded)(scope, receive, send)

    def ask_early(self, scope: Message) -> Any:
        """As the guard's, if it has it: for servers that ask before they make a task."""
        ask = None if scope["path"] in self._past else getattr(self._guarded, "ask_early", None)
        return None if ask is None else ask(scope)


class Asked:
    """What uvicorn has put around the application, asked early: outermost, as `penstock serve` has it."""

    def __init__(self, app: Any, routed: Routed) -> None:
        self._app, self.ask_early = app, routed.ask_early

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


async def _statistics(scope: Message, receive: Receive, send: Send) -> None:
    from penstock.pressure import loop_statistics
    from penstock.pressure.admission.registry import statistics

    known = {name: dataclasses.asdict(found) for name, found in statistics().items()}
    known["the loop"] = dataclasses.asdict(loop_statistics())
    body = json.dumps(known, default=str).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def as_penstock_serves(config: uvicorn.Config, routed: Routed) -> None:
    """Refuse before there is a task, and what the loop turns away unread."""
    from penstock.integrations.uvicorn import shedding as refusing

    config.load()
    config.loaded_app = asked = Asked(config.loaded_app, routed)
    refusing.refuse_early(config, asked)  # type: ignore[arg-type]
    refusing.refuse_unread(config)


def health_port(loop: asyncio.AbstractEventLoop) -> int:
    """Answer for the loop on a port of its own, as `penstock serve --health-port` does; that port."""
    from penstock.integrations.health.server import HealthServer

    health = HealthServer(0)
    health.start()
    health.follow(loop)
    health.ready()
    return int(health.port)


def main() -> None:
    arm, service = ARMS[base_arm(sys.argv[1])], SERVICES[sys.argv[2]]()
    loop = arm.loop()
    asyncio.set_event_loop(loop)
    bare = answer(service)
    routed = Routed(arm.guard(bare), bare)
    config = uvicorn.Config(
        routed,
        http="httptools",
        ws="none",
        lifespan="off",
        log_level="error",
        access_log=False,
        limit_concurrency=arm.limit_concurrency,
        timeout_keep_alive=KEEP_ALIVE_S,
    )
    if sys.argv[1].startswith("penstock"):
        as_penstock_serves(config, routed)
    loop.add_signal_handler(signal.SIGUSR2, service.turn)
    listener = listen_anywhere()
    print(listener.getsockname()[1], flush=True)
    if sys.argv[1].startswith("penstock"):
        print(health_port(loop), flush=True)
    loop.run_until_complete(uvicorn.Server(config).serve(sockets=[listener]))


if __name__ == "__main__":
    main()
