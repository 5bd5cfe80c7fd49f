import asyncio
import contextvars
import socket
from collections.abc import Callable

from typing_extensions import disjoint_base

from penstock._core.net.deferred_accepts import AcceptingSource
from penstock._core.net.io_context import IOContext

ACCEPT_RETRY_DELAY: float
OUT_OF_RESOURCES: set[int]

@disjoint_base
class Listener(AcceptingSource):
    on_deferred: Callable[[], object] | None
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        io: IOContext,
        sock: socket.socket,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        server: asyncio.AbstractServer | None = None,
        context: contextvars.Context | None = None,
    ) -> None: ...
    def resume(self) -> None: ...
    def pause(self) -> None: ...
    def close_deferred(self) -> None: ...
    @property
    def sheds_unread(self) -> bool: ...
    def report_failure(self, protocol: asyncio.BaseProtocol, exc: BaseException) -> None: ...
    def _retry(self) -> None: ...

def set_nodelay(sock: socket.socket) -> None: ...
def bound_unsent(sock: socket.socket) -> None: ...
