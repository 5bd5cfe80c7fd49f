"""Serving: the servers that a loop has opened, their bound on connections, and the hooks of a drain."""

from __future__ import annotations

import asyncio
from asyncio import base_events
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeAlias
from weakref import WeakSet

from penstock.loop.native import native_core
from penstock.loop.servers import FewAccepts, ReaderAcceptor, Server

if TYPE_CHECKING:
    import socket

__all__ = ["DrainHook", "ServerHooks"]

# hook(loop), with the loop that drains
DrainHook: TypeAlias = Callable[[Any], Awaitable[Any] | None]


class ServerHooks(asyncio.BaseEventLoop):
    """Mixin, before asyncio's loop in the bases, that remembers and bounds the loop's servers."""

    _servers: WeakSet[Server] | None = None
    _max_connections: int | None = None
    _drain_hooks: tuple[DrainHook, ...] = ()
    _wrap_factory: Callable[[Callable[[], Any]], Callable[[], Any]] | None = None

    async def create_server(self, protocol_factory: Callable[[], Any], *args: Any, **kwargs: Any) -> Server:
        """Create a server as asyncio's loop does. It can be paused and bounded, and the loop refers to it weakly."""
        return self.adopt_server(await super().create_server(self._wrapped(protocol_factory), *args, **kwargs))

    async def create_unix_server(self, protocol_factory: Callable[[], Any], *args: Any, **kwargs: Any) -> Server:
        """Create a server on a Unix socket, as `create_server`."""
        return self.adopt_server(await super().create_unix_server(self._wrapped(protocol_factory), *args, **kwargs))

    def wrap_protocol_factories(self, wrap: Callable[[Callable[[], Any]], Callable[[], Any]]) -> None:
        """Have servers that are made from now on use `wrap(protocol_factory)`."""
        self._wrap_factory = wrap

    def _wrapped(self, protocol_factory: Callable[[], Any]) -> Callable[[], Any]:
        return protocol_factory if self._wrap_factory is None else self._wrap_factory(protocol_factory)

    def adopt_server(self, server: asyncio.Server) -> Server:
        """Have asyncio's server become a `Server`, once; any other kind of server is only remembered. Return it."""
        if self._servers is None:
            self._servers = WeakSet()
        if type(server) is base_events.Server:
            server.__class__ = Server
            adopted: Any = server
            adopted.max_connections = self._max_connections
        self._servers.add(server)  # type: ignore[arg-type]
        return server  # type: ignore[return-value]

    def set_max_connections(self, count: int | None) -> None:
        """Set the bound on connections with which servers made from now on begin; None: no bound."""
        self._max_connections = count

    def servers(self) -> list[Server]:
        """Return the living servers that this loop has opened."""
        return list(self._servers or ())

    def _start_serving(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        sock: socket.socket,
        sslcontext: Any = None,
        server: Any = None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        # asyncio calls it before anything is accepted, and again a second after it ran out of descriptors
        if isinstance(sock, FewAccepts):
            sock = sock.sock
        begin = partial(super()._start_serving, protocol_factory, sock, sslcontext, server, *args, **kwargs)  # type: ignore[misc]
        if not isinstance(server, base_events.Server):
            begin()
        else:
            self.adopt_server(server)._begin_accepting(sock, ReaderAcceptor(self, sock, begin))

    def _accept_connection(
        self,
        protocol_factory: Any,
        sock: socket.socket,
        sslcontext: Any = None,
        server: Any = None,
        backlog: int = 100,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        room, core = server._room() if isinstance(server, Server) else None, native_core(self)
        now = None if core is None else core.accepts_now()
        if now is not None:
            room = now if room is None else min(room, now)
        if room is not None:
            # each gets a task, which attaches it in the next turn: until then their number is not known
            if not room or server._is_attaching:
                return
            sock = FewAccepts(sock, room)  # type: ignore[assignment]
            server._is_attaching = True
        super()._accept_connection(protocol_factory, sock, sslcontext, server, backlog, *args, **kwargs)  # type: ignore[misc]
        if room is not None:
            self.call_soon(server._attached)

    def add_drain_hook(self, hook: Callable[[Self], Awaitable[Any] | None]) -> None:
        """Call `hook(loop)` when a drain begins; an awaitable it returns is awaited, within the drain's time."""
        self._drain_hooks = (*self._drain_hooks, hook)

    def drain_hooks(self) -> Iterator[DrainHook]:
        """Return the drain hooks, in the order in which they were added."""
        return iter(self._drain_hooks)
