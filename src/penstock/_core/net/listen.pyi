import asyncio
import contextvars
import socket
from collections.abc import Callable

from typing_extensions import disjoint_base

from penstock._core.net.deferred_accepts import Parker
from penstock._core.net.io_context import Wiring

ACCEPT_RETRY_DELAY: float
OUT_OF_RESOURCES: set[int]

@disjoint_base
class Listener(Parker):
    on_parked: Callable[[], object] | None
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        wiring: Wiring,
        sock: socket.socket,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        server: asyncio.AbstractServer | None = None,
        context: contextvars.Context | None = None,
    ) -> None: ...
    def resume(self) -> None: ...
    def pause(self) -> None: ...
    def close_parked(self) -> None: ...
    @property
    def answers_unread(self) -> bool: ...
    def refuse(self, protocol: asyncio.BaseProtocol, exc: BaseException) -> None: ...
    def _retry(self) -> None: ...

def set_nodelay(sock: socket.socket) -> None: ...
def bound_unsent(sock: socket.socket) -> None: ...
