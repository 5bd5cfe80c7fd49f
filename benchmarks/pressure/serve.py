"""Serves a guarded service on uvicorn: prints its port, then serves until it is killed.

A second line is the health port, if the arm has one. `/bare` goes past the guard, for the service's own capacity.
`/statistics` has the counts of penstock's gates and of the loop's own. SIGUSR2 makes the backend slower, or as fast as
before.
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
    """The guarded application, and the paths that go past its guard."""

    def __init__(self, guarded: App, bare: App) -> None:
        self._guarded = guarded
        self._past: dict[str, App] = {"/bare": bare, "/statistics": _statistics}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        await self._past.get(scope["path"], self._guarded)(scope, receive, send)

    def ask_early(self, scope: Message) -> Any:
        """Ask the guard before a task is made, where it has `ask_early`."""
        ask = None if scope["path"] in self._past else getattr(self._guarded, "ask_early", None)
        return None if ask is None else ask(scope)


class Asked:
    """The outermost application, with `ask_early` in front of uvicorn's own wrappers, as in `penstock serve`."""

    def __init__(self, app: Any, routed: Routed) -> None:
        self._app, self.ask_early = app, routed.ask_early

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


async def _statistics(scope: Message, receive: Receive, send: Send) -> None:
    from penstock.pressure import loop_statistics
    from penstock.pressure.admission.gate import statistics

    known = {name: dataclasses.asdict(found) for name, found in statistics().items()}
    known["the loop"] = dataclasses.asdict(loop_statistics())
    body = json.dumps(known, default=str).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def as_penstock_serves(config: uvicorn.Config, routed: Routed) -> None:
    """Refuse before a task is made, and refuse unread where the loop is late, as `penstock serve` does."""
    from penstock.integrations.uvicorn import shedding

    config.load()
    config.loaded_app = asked = Asked(config.loaded_app, routed)
    shedding.shed_early(config, asked)  # type: ignore[arg-type]
    shedding.shed_unread(config)


def health_port(loop: asyncio.AbstractEventLoop) -> int:
    """Serve health checks on another port, as `penstock serve --health-port` does; return the port."""
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
