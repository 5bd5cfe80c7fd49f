import asyncio
import contextvars
import socket
from typing import Any

from typing_extensions import disjoint_base

from penstock._core.outlet import Outlet
from penstock._core.wiring import Wiring

# What a Stream says it is: `isinstance(stream, asyncio.Transport)` holds.
class StreamTransport(asyncio.transports._FlowControlMixin, asyncio.Transport): ...

@disjoint_base
class Stream(Outlet):
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        wiring: Wiring,
        sock: socket.socket | None,
        fd: int,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
        server: asyncio.AbstractServer | None = None,
        context: contextvars.Context | None = None,
    ) -> None: ...
    def is_reading(self) -> bool: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def close(self) -> None: ...
    def _attach(self) -> None: ...
    def _detach(self) -> None: ...
    def _reattach(self) -> None: ...
    @property
    def _paused(self) -> bool: ...
    @property
    def _eof(self) -> bool: ...

def start(stream: Stream) -> None: ...
