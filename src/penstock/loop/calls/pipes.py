"""asyncio's pipe transports over native ones, for FIFOs and stream sockets.

Terminals, other devices and sockets of other kinds get asyncio's own transports, level-triggered over watches.
They refuse regular files, and log what epoll refuses, such as /dev/null.
"""

from __future__ import annotations

import asyncio
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock.loop.native import NativeCore

    class SelectorLoop(asyncio.SelectorEventLoop):
        """asyncio's loop with the seams that typeshed leaves out, and the native core."""

        @property
        def _native_core(self) -> NativeCore: ...

        def _make_read_pipe_transport(self, *args: Any) -> asyncio.ReadTransport: ...
        def _make_write_pipe_transport(self, *args: Any) -> asyncio.WriteTransport: ...

else:
    SelectorLoop = asyncio.SelectorEventLoop

__all__ = ["PipeCalls"]


class PipeCalls(SelectorLoop):
    """Mixin, after the reactor and before asyncio's loop in the bases."""

    def _make_read_pipe_transport(
        self,
        pipe: IO[bytes],
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> Any:
        transport = self._native_core.make_read_pipe(pipe, protocol, waiter, extra)
        return transport or super()._make_read_pipe_transport(pipe, protocol, waiter, extra)

    def _make_write_pipe_transport(
        self,
        pipe: IO[bytes],
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> Any:
        transport = self._native_core.make_write_pipe(pipe, protocol, waiter, extra)
        return transport or super()._make_write_pipe_transport(pipe, protocol, waiter, extra)
