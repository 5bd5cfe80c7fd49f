import asyncio
from typing import IO, Any, final

from penstock._core.net.io_context import IOContext
from penstock._core.pipes.transport import PipeTransport

# What a ReadPipe says it is: `isinstance(transport, asyncio.ReadTransport)` holds.
class ReadPipeTransport(asyncio.ReadTransport): ...

@final
class ReadPipe(PipeTransport):
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        io: IOContext,
        pipe: IO[bytes],
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> None: ...
    def is_reading(self) -> bool: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def close(self) -> None: ...
    @property
    def _paused(self) -> bool: ...
