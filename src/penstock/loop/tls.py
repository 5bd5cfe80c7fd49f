"""TLS on the native loop: `start_tls`, and the handshakes of a server's connections."""

from __future__ import annotations

import asyncio
import ssl
from functools import partial
from typing import TYPE_CHECKING, Any

from penstock._core.tls.transport import tls_protocol

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["StartTLS", "tls_factory"]


class StartTLS(asyncio.BaseEventLoop):
    """Mixin, before asyncio's loop in the bases."""

    async def start_tls(
        self,
        transport: Any,
        protocol: asyncio.BaseProtocol,
        sslcontext: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> asyncio.Transport:
        """Upgrade a transport of any kind to TLS, and return the one that `protocol` uses from now on."""
        if not isinstance(sslcontext, ssl.SSLContext):
            raise TypeError(f"sslcontext is expected to be an instance of ssl.SSLContext, got {sslcontext!r}")
        if not getattr(transport, "_start_tls_compatible", False):
            raise TypeError(f"transport {transport!r} is not supported by start_tls()")
        waiter = self.create_future()
        layer = tls_protocol(
            self,
            protocol,
            sslcontext,
            waiter,
            server_side,
            server_hostname,
            call_connection_made=False,
            ssl_handshake_timeout=ssl_handshake_timeout,
            ssl_shutdown_timeout=ssl_shutdown_timeout,
        )
        # no data before connection_made
        transport.pause_reading()
        if server_side:
            _take_over(layer, protocol)
        transport.set_protocol(layer)
        made = self.call_soon(layer.connection_made, transport)
        resumed = self.call_soon(transport.resume_reading)
        try:
            await waiter
        except BaseException:
            transport.close()
            made.cancel()
            resumed.cancel()
            raise
        wrapped: asyncio.Transport = layer._app_transport
        return wrapped


def _take_over(layer: Any, protocol: Any) -> None:
    """Hand the layer what a StreamReader has read already: the client sent its first record along with the request.

    On the client's side what is there came before the handshake, unprotected: it must not pass for the peer's.
    """
    reader = getattr(protocol, "_stream_reader", None) if isinstance(protocol, asyncio.StreamReaderProtocol) else None
    if reader is not None and reader._buffer:
        layer.take_over(bytes(reader._buffer))
        reader._buffer.clear()


class ServedHandshake:
    """The waiter of an accepted connection: a failed handshake is reported in debug mode only, as by asyncio's."""

    layer: Any = None

    def __init__(self, loop: Any, protocol: asyncio.BaseProtocol) -> None:
        self._loop, self._protocol = loop, protocol

    def cancelled(self) -> bool:
        """Return False: nothing awaits it."""
        return False

    def set_result(self, result: None) -> None:
        """Do nothing: the connection is made."""

    def set_exception(self, exc: BaseException) -> None:
        """Close the transport in the next turn, and report in debug mode."""
        self._loop.call_soon(self._fail, exc, self.layer._app_transport)

    def _fail(self, exc: BaseException, transport: Any) -> None:
        if transport is not None:
            transport.close()
        if self._loop.get_debug():
            self._loop.call_exception_handler(
                {
                    "message": "Error on transport creation for incoming connection",
                    "exception": exc,
                    "protocol": self._protocol,
                    "transport": transport,
                }
            )


def tls_factory(
    loop: Any, protocol_factory: Callable[[], asyncio.BaseProtocol], sslcontext: Any, timeouts: dict[str, Any]
) -> Callable[[], Any]:
    """Return a factory of the native layers over a server's connections."""
    return partial(_serve, loop, protocol_factory, sslcontext, timeouts)


def _serve(
    loop: Any, protocol_factory: Callable[[], asyncio.BaseProtocol], sslcontext: Any, timeouts: dict[str, Any]
) -> Any:
    protocol = protocol_factory()
    handshake = ServedHandshake(loop, protocol)
    handshake.layer = tls_protocol(loop, protocol, sslcontext, handshake, True, None, **timeouts)
    return handshake.layer
