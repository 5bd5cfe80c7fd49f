"""The services under load, as plain ASGI: one waits for a backend, one computes in the loop.

A service has no gate and no limit; guards are put around it (`arms.py`). Its backlog waits, as in most programs: of the
I/O-bound one for a slot of the backend, of the CPU-bound one as ready tasks.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

__all__ = ["HEALTH_PATH", "PORT_PATH", "SERVICES", "App", "Backend", "Cpu", "Service", "answer"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

SLOTS, SERVICE_S = 4, 0.010
CPU_S = 0.00125  # twice for each request
SLOWER = 4
# answered without the service; on the health port
HEALTH_PATH, PORT_PATH = "/healthz", "/livez"


class Backend:
    """A backend with a number of slots and a FIFO queue; `turn()` makes it slower, or as fast as before."""

    def __init__(self) -> None:
        self._free = SLOTS
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._service_s = SERVICE_S

    def turn(self) -> None:
        self._service_s = SERVICE_S * SLOWER if self._service_s == SERVICE_S else SERVICE_S

    async def __call__(self) -> None:
        await self._take()
        try:
            await asyncio.sleep(self._service_s)
        finally:
            self._give_back()

    async def _take(self) -> None:
        if self._free:
            self._free -= 1
            return
        slot = asyncio.get_running_loop().create_future()
        self._waiting.append(slot)
        try:
            await slot
        except asyncio.CancelledError:
            # the slot may have been handed over in the same turn
            if slot.done() and not slot.cancelled():
                self._give_back()
            raise

    def _give_back(self) -> None:
        while self._waiting:
            slot = self._waiting.popleft()
            if not slot.done():
                slot.set_result(None)
                return
        self._free += 1


class Cpu:
    """A service that computes, yields a turn, and computes again; calibrated to CPU time when it is made."""

    def __init__(self) -> None:
        self._count = calibrated(CPU_S)

    def turn(self) -> None:
        raise NotImplementedError("its time is the processor's")

    async def __call__(self) -> None:
        burn(self._count)
        await asyncio.sleep(0)
        burn(self._count)


Service = Backend | Cpu
SERVICES: dict[str, Callable[[], Service]] = {"io": Backend, "cpu": Cpu}


def burn(count: int) -> int:
    value = 1
    for _ in range(count):
        value = (value * 5 + 1) & 0xFFFF
    return value


def calibrated(seconds: float) -> int:
    """Return the number of steps that take `seconds` of the thread's CPU time: the best of several runs."""
    count = 10_000
    best_s = min(_timed_s(count) for _ in range(15))
    return round(count * seconds / best_s)


def _timed_s(count: int) -> float:
    began_s = time.thread_time()
    burn(count)
    return time.thread_time() - began_s


BODY = b"done\n"
HEAD = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/plain"), (b"content-length", str(len(BODY)).encode())],
}


def answer(service: Service) -> App:
    """Return the ASGI application that answers when the service is done."""

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        if scope["path"] != HEALTH_PATH:
            await service()
        await send(HEAD)
        await send({"type": "http.response.body", "body": BODY})

    return app
