"""The cost of a refusal in a server: from the bytes of a request to the bytes of its answer, without a socket.

uvicorn's protocol is driven by hand with an application that never answers, full by uvicorn's own limit or by a gate.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from benchmarks.micro.case import Case, Loop
from benchmarks.pressure.services import Message, Receive, Send

__all__ = ["REFUSED", "by_a_gate", "by_uvicorn", "refused"]

REFUSED = "a request answered 503"
REQUEST = b"GET /work HTTP/1.1\r\nhost: 127.0.0.1\r\nuser-agent: load\r\naccept: */*\r\nx-deadline-ms: 100\r\n\r\n"
HEADERS = [(b"date", b"Thu, 26 Nov 2026 05:10:12 GMT"), (b"server", b"uvicorn")]


class Counted(asyncio.Transport):
    """A transport that counts whole answers, written in one piece or as head and body."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name in {"peername", "sockname"} else default

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False

    def write(self, data: Any) -> None:
        assert b"503" in data or b"\r\n" not in data
        # uvicorn writes its own in two parts
        self.answers += data.endswith((b"\n", b"Unavailable"))

    def resume_reading(self) -> None:
        pass

    def close(self) -> None:
        pass


async def _waits(scope: Message, receive: Receive, send: Send) -> None:
    await asyncio.sleep(3600)


def by_uvicorn() -> uvicorn.Config:
    """Return the config of a server whose only connection is beyond `--limit-concurrency`."""
    config = _config(limit_concurrency=1)
    config.load()
    return config


def by_a_gate() -> uvicorn.Config:
    """Return the config of a server behind a full gate, which refuses before a task is made."""
    from penstock import Gate
    from penstock.integrations.admission import AdmissionMiddleware
    from penstock.integrations.uvicorn.shedding import shed_early

    gate = Gate(1, max_wait_s=0.0)
    assert gate.try_enter()
    config = _config()
    config.load()
    config.loaded_app = admission = AdmissionMiddleware(_waits, gate)  # type: ignore[arg-type]
    assert shed_early(config, admission)
    return config


def refused(make: Callable[[], uvicorn.Config]) -> dict[str, Case]:
    """Return the body of the row for a full server."""
    return {REFUSED: Case(partial(_refused, make))}


def _config(**how: Any) -> uvicorn.Config:
    return uvicorn.Config(_waits, http="httptools", ws="none", log_level="error", access_log=False, **how)


def _refused(make: Callable[[], uvicorn.Config], loop: Loop, count: int) -> int:
    async def main() -> int:
        config, state, transport = make(), ServerState(), Counted()
        state.default_headers = HEADERS
        protocol: Any = config.http_protocol_class(config=config, server_state=state, app_state={}, _loop=loop)  # type: ignore[operator, call-arg]
        protocol.connection_made(transport)
        began_ns = time.process_time_ns()
        for _ in range(count):
            protocol.data_received(REQUEST)
            # uvicorn answers in a task, the gate in the next turn
            await asyncio.sleep(0)
            while transport.answers == 0:  # noqa: ASYNC110
                await asyncio.sleep(0)
            transport.answers = 0
        took_ns = time.process_time_ns() - began_ns
        protocol.connection_lost(None)
        return took_ns

    return loop.run_until_complete(main())
