"""The native loop: penstock's reactor before asyncio's selector loop.

Rare functions (datagrams, happy eyeballs) are asyncio's own code over native watches; this module holds the seams where
native code takes over: sockets become transports, servers listen, signals arrive.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import TYPE_CHECKING, Any

import penstock._core.schedule  # noqa: F401 (gives the Reactor its call_soon, call_later, call_at)
from penstock._core.control import ReactorControl
from penstock._core.datagrams.endpoint import DatagramEndpoint
from penstock._core.net.clients import Clients
from penstock._core.net.io_context import warm_allocator
from penstock._core.net.listen import Listener, set_nodelay
from penstock._core.net.stream import Stream
from penstock._core.reactor import Reactor
from penstock._core.tls.transport import tls_protocol
from penstock.config import LoopConfig
from penstock.loop.calls.connecting import Connecting
from penstock.loop.calls.pipes import PipeCalls
from penstock.loop.calls.sockets import SocketCalls
from penstock.loop.calls.subprocesses import SubprocessCalls
from penstock.loop.hooks import LoopHooks
from penstock.loop.selector_view import PollerView
from penstock.loop.servers import Server
from penstock.loop.tls import StartTLS, tls_factory

__all__ = ["EventLoop"]

# of datagram sockets
FAMILIES = socket.AF_INET, socket.AF_INET6, socket.AF_UNIX

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Callable

    class SelectorLoop(asyncio.SelectorEventLoop):
        """asyncio's loop with the seam of its own that typeshed leaves out."""

        _internal_fds: int

        def _check_closed(self) -> None: ...
        def _make_self_pipe(self) -> None: ...
        def _close_self_pipe(self) -> None: ...
        def _ensure_fd_no_transport(self, fd: Any) -> None: ...
        async def _sendfile_native(self, transp: Any, file: Any, offset: int, count: int | None) -> int: ...
        def _start_serving(self, protocol_factory: Any, sock: socket.socket, *args: Any, **kwargs: Any) -> None: ...
        def _stop_serving(self, sock: socket.socket) -> None: ...
        def _make_datagram_transport(self, sock: socket.socket, *args: Any) -> Any: ...

else:
    SelectorLoop = asyncio.SelectorEventLoop


# The mixins after the reactor have asyncio's loop as a base: before it they would put asyncio's methods before the
# core's.
class EventLoop(LoopHooks, Connecting, StartTLS, Reactor, SocketCalls, PipeCalls, SubprocessCalls, SelectorLoop):
    """penstock's event loop, a drop-in for asyncio's.

    `config` is the loop's part of a `Config`; without one, the defaults hold.
    """

    # not of subclasses, which may have methods of their own
    _is_final = True

    def __init__(self, config: LoopConfig | None = None) -> None:
        config = config or LoopConfig()
        self._ssock: socket.socket | None = None
        self._csock: socket.socket | None = None
        super().__init__(PollerView(self))
        if config.warm_allocator:
            warm_allocator()
        self._native_core.configure(
            poll_every_turns=config.poll_every_turns,
            poll_every_us=config.poll_every_us,
            spin_us=config.spin_us,
            timer_slack_us=config.timer_slack_us,
            read_budget_bytes=config.read_budget_bytes,
            accept_batch=config.accept_batch,
        )
        self.slow_callback_duration = config.slow_callback_s
        if config.debug is not None:
            self.set_debug(config.debug)

    @property
    def _native_core(self) -> ReactorControl:
        # made anew for each caller: one that the loop kept would refer back to it, and a collector would have to come
        return ReactorControl(self)

    @property
    def _nest_patched(self) -> bool:
        # nest_asyncio looks for this attribute before it replaces our methods by asyncio's: Python code that polls a
        # selector, which this loop has not. Refused in its own words, with which it refuses uvloop's.
        if sys._getframe(1).f_code.co_name == "_patch_loop":
            raise ValueError(f"Can't patch loop of type {type(self)}")
        raise AttributeError("_nest_patched")

    def close(self) -> None:
        """Close the loop: nothing runs any more, every descriptor is given back. RuntimeError while it runs."""
        was_closed = self.is_closed()
        super().close()
        if not was_closed:
            self._native_core.dispose()

    # The self-pipe is asyncio's way to hear of signals and to be woken. Ours is an eventfd; a signal's number needs a
    # pipe still, made when the first handler is set.

    def _make_self_pipe(self) -> None:
        self._internal_fds += 1

    def _close_self_pipe(self) -> None:
        if self._csock is not None:
            super()._close_self_pipe()
        else:
            self._internal_fds -= 1

    def add_signal_handler(self, sig: int, callback: Callable[..., object], *args: object) -> None:
        """Run `callback(*args)` in the loop when the signal arrives; main thread only."""
        self._check_closed()
        self.signal_fd()
        super().add_signal_handler(sig, callback, *args)

    def signal_fd(self) -> int:
        """Return the descriptor for `signal.set_wakeup_fd`. The pipe is made at first use."""
        if self._csock is None:
            super()._make_self_pipe()
            self._internal_fds -= 1
        return super().signal_fd()

    # Connected sockets become native transports; with TLS, a native layer runs over one.

    def _make_socket_transport(
        self,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        *,
        extra: dict[str, Any] | None = None,
        server: asyncio.AbstractServer | None = None,
        context: contextvars.Context | None = None,
    ) -> Stream:
        self._ensure_fd_no_transport(sock)
        set_nodelay(sock)
        return self._native_core.make_stream(sock, protocol, waiter, extra=extra, server=server, context=context)

    def _make_ssl_transport(
        self,
        rawsock: socket.socket,
        protocol: asyncio.BaseProtocol,
        sslcontext: Any,
        waiter: asyncio.Future[None] | None = None,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        extra: dict[str, Any] | None = None,
        server: asyncio.AbstractServer | None = None,
        context: contextvars.Context | None = None,
        **timeouts: Any,
    ) -> asyncio.Transport:
        layer = tls_protocol(self, protocol, sslcontext, waiter, server_side, server_hostname, **timeouts)
        self._make_socket_transport(rawsock, layer, extra=extra, server=server, context=context)
        transport: asyncio.Transport = layer._app_transport
        return transport

    def _make_datagram_transport(
        self,
        sock: socket.socket,
        protocol: asyncio.DatagramProtocol,
        address: Any = None,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> Any:
        if not takes_datagrams(sock):
            return super()._make_datagram_transport(sock, protocol, address, waiter, extra)
        self._ensure_fd_no_transport(sock)
        return self._native_core.make_datagrams(sock, protocol, address, waiter, extra)

    def _ensure_fd_no_transport(self, fd: Any) -> None:
        super()._ensure_fd_no_transport(fd)
        source = self._native_core.source_at(fd if isinstance(fd, int) else int(fd.fileno()))
        if isinstance(source, (Stream, DatagramEndpoint)) and not source.is_closing():
            raise RuntimeError(f"File descriptor {fd!r} is used by transport {source!r}")

    async def _sendfile_native(self, transp: Any, file: Any, offset: int, count: int | None) -> int:
        if not isinstance(transp, Stream):
            return await super()._sendfile_native(transp, file, offset, count)
        resume_reading = transp.is_reading()
        transp.pause_reading()
        await transp._make_empty_waiter()
        transp._detach()
        try:
            return await self.sock_sendfile(transp._sock, file, offset, count, fallback=False)
        finally:
            transp._reset_empty_waiter()
            transp._reattach()
            if resume_reading:
                transp.resume_reading()

    # Servers: accepted without a task for each connection.

    def _start_serving(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        sock: socket.socket,
        sslcontext: Any = None,
        server: asyncio.AbstractServer | None = None,
        backlog: int = 100,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        context: contextvars.Context | None = None,
    ) -> None:
        if sslcontext is not None:
            timeouts = {"ssl_handshake_timeout": ssl_handshake_timeout, "ssl_shutdown_timeout": ssl_shutdown_timeout}
            protocol_factory = tls_factory(self, protocol_factory, sslcontext, timeouts)
        adopted = self.adopt_server(server) if isinstance(server, asyncio.base_events.Server) else None
        if type(adopted) is Server:
            adopted._keep_clients(Clients)
        listener = self._native_core.make_listener(sock, protocol_factory, server, context)
        if adopted is not None:
            listener.on_deferred = adopted._deferred_changed
            adopted._begin_accepting(sock, listener)
        else:
            listener.resume()

    def _stop_serving(self, sock: socket.socket) -> None:
        listener = self._native_core.source_at(sock.fileno())
        if isinstance(listener, Listener):
            listener.pause()
        super()._stop_serving(sock)


def takes_datagrams(sock: socket.socket) -> bool:
    """Return whether native code takes the socket: Python's own class, of a family whose addresses it knows."""
    return type(sock) is socket.socket and sock.type == socket.SOCK_DGRAM and sock.family in FAMILIES
