"""Servers that can be paused, each for several reasons, and that are full at a number of connections.

A server is asyncio's own object, made by asyncio's own code; the loop has it become one of these as it begins to
serve, before anything is accepted. So it stays an `asyncio.Server` in every way, on the native loop and on the pure
one, with TLS and without. Connections without room stay in the kernel's backlog, and none is refused. Knows no lag:
the callers have the reasons to pause.
"""

from __future__ import annotations

import contextvars
from asyncio import base_events
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakSet

from penstock.config.converters import optional, whole
from penstock.errors import ConfigError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

__all__ = ["Acceptor", "FewAccepts", "ReaderAcceptor", "Server", "connection_count"]

# two reasons to pause a server; callers bring others
PROGRAM, FULL = "program", "full"
MOST = optional(whole(1, "connections"), "any number")


class Acceptor(Protocol):
    """The acceptor of one listening socket."""

    def resume(self) -> None:
        """Accept; nothing changes if it does already."""

    def pause(self) -> None:
        """Accept nothing until `resume`."""

    def close_deferred(self) -> None:
        """Close the accepted connections without a transport."""

    @property
    def deferred(self) -> int:
        """The number of accepted connections without a transport."""

    @property
    def sheds_unread(self) -> bool:
        """Whether a connection to a full backlog is shed at once."""


class ReaderAcceptor:
    """asyncio's own way to accept: a reader on the socket, set again in the context it was first set in."""

    deferred = 0
    sheds_unread = False

    def __init__(self, loop: Any, sock: socket.socket, begin: Callable[[], None]) -> None:
        self._loop, self._sock, self._begin = loop, sock, begin
        self._context = contextvars.copy_context()
        self._is_accepting = False

    def resume(self) -> None:
        """Accept, unless the socket is closed."""
        if not self._is_accepting and self._sock.fileno() >= 0:
            self._is_accepting = True
            # a copy: the context itself may be entered already, by the caller
            self._context.copy().run(self._begin)

    def pause(self) -> None:
        """Accept nothing until `resume`; the kernel's backlog fills meanwhile."""
        if self._is_accepting:
            self._is_accepting = False
            self._loop._remove_reader(self._sock.fileno())

    def close_deferred(self) -> None:
        """Do nothing: each accepted connection has a task that makes its transport."""


class FewAccepts:
    """A listening socket for asyncio's accepting code, as empty after `left` accepts."""

    def __init__(self, sock: socket.socket, left: int) -> None:
        self.sock, self._left = sock, left

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept as the socket does. BlockingIOError without a client, or beyond the bound."""
        if self._left <= 0:
            raise BlockingIOError
        accepted = self.sock.accept()
        self._left -= 1
        return accepted

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sock, name)


class Server(base_events.Server):
    """An asyncio.Server with `pause_accepting()`, `resume_accepting()` and `max_connections`.

    Ownership: the acceptors are the server's, one for each listening socket, from its start until it is closed.
    """

    # Class attributes, since no constructor of ours ever runs.
    _acceptors: dict[Any, Acceptor] = {}  # noqa: RUF012 (never changed: each server that starts gets one of its own)
    _paused_by: frozenset[str] = frozenset()
    _max_connections: int | None = None
    _is_attaching = False
    _sockets: list[Any] | None
    _clients: Any
    _loop: Any

    def pause_accepting(self) -> None:
        """Accept nothing until `resume_accepting`: clients stay in the kernel's backlog, connections go on.

        `is_serving()` stays true. Also before the server has started, which then accepts once it is resumed.
        """
        self._pause(PROGRAM)

    def resume_accepting(self) -> None:
        """Accept again, as far as the loop and `max_connections` allow."""
        self._resume(PROGRAM)

    def is_accepting(self) -> bool:
        """Return whether clients are accepted now: the server serves, and nothing has paused it."""
        return self.is_serving() and not self._paused_by

    @property
    def max_connections(self) -> int | None:
        """At most so many connections at once; what comes beyond waits in the kernel's backlog. None: any number.

        Connections, not requests: idle ones count. Lowered below what is open it closes none. ConfigError for less
        than 1.
        """
        return self._max_connections

    @max_connections.setter
    def max_connections(self, count: int | None) -> None:
        try:
            MOST.accept(count)
        except ValueError:
            raise ConfigError.bad_value("max_connections", count, "Server", MOST.allowed) from None
        self._max_connections = count
        self._watch_clients()
        self._check_room()

    # --- for the loop and the runtime

    def _pause(self, reason: str) -> None:
        was_accepting = not self._paused_by
        self._paused_by |= {reason}
        if was_accepting:
            for acceptor in self._acceptors.values():
                acceptor.pause()

    def _resume(self, reason: str) -> None:
        if reason not in self._paused_by:
            return
        self._paused_by -= {reason}
        if not self._paused_by and self._sockets is not None:
            for acceptor in self._acceptors.values():
                acceptor.resume()

    def _begin_accepting(self, sock: Any, acceptor: Acceptor) -> None:
        """Serve this socket by `acceptor`, unless the server is paused."""
        self._acceptors = {**self._acceptors, sock: acceptor}
        if not self._paused_by:
            acceptor.resume()

    def _room(self) -> int | None:
        """Return how many connections may still come; None: any number."""
        if self._max_connections is None:
            return None
        return max(self._max_connections - connection_count(self), 0)

    def _check_room(self) -> None:
        if self._room() == 0:
            self._pause(FULL)
        else:
            self._resume(FULL)

    def _keep_clients(self, make_clients: Callable[[], Any]) -> None:
        """Keep the clients in a collection of the native core from now on, where asyncio's server keeps them."""
        clients = getattr(self, "_clients", None)
        if type(clients) is WeakSet and not clients:
            self._clients = make_clients()
            self._watch_clients()

    def _watch_clients(self) -> None:
        # it is notified of each client only where there is a bound
        if hasattr(getattr(self, "_clients", None), "on_change"):
            self._clients.on_change = None if self._max_connections is None else self._check_room

    def _deferred_changed(self) -> None:
        """Check for room: the number of deferred accepts has changed."""
        if self._max_connections is not None:
            self._check_room()

    def _close_deferred(self) -> None:
        for acceptor in self._acceptors.values():
            acceptor.close_deferred()

    def _sheds_unread(self) -> bool:
        return any(acceptor.sheds_unread for acceptor in self._acceptors.values())

    def _attached(self) -> None:
        """Allow the next accepts: the connections that tasks accepted are attached by now."""
        self._is_attaching = False

    # --- as asyncio's

    def _attach(self, *transport: Any) -> None:
        super()._attach(*transport)  # type: ignore[misc]
        if self._max_connections is not None:
            self._check_room()

    def _detach(self, *transport: Any) -> None:
        super()._detach(*transport)  # type: ignore[misc]
        if self._max_connections is not None:
            self._check_room()

    if hasattr(base_events.Server, "abort_clients"):

        def close_clients(self) -> None:
            """Close clients as asyncio's server does; close deferred accepts too."""
            self._close_deferred()
            self._deferred_changed()
            super().close_clients()  # type: ignore[misc]

        def abort_clients(self) -> None:
            """Abort clients as asyncio's server does; close deferred accepts too."""
            self._close_deferred()
            self._deferred_changed()
            super().abort_clients()  # type: ignore[misc]

    def close(self) -> None:
        """Close as asyncio's server does. Deferred accepts are closed as the kernel closes its backlog."""
        self._close_deferred()
        super().close()
        self._acceptors = {}


def connection_count(server: Any) -> int:
    """Return the number of accepted connections that have not ended, deferred accepts too."""
    parked = sum(acceptor.deferred for acceptor in server._acceptors.values()) if isinstance(server, Server) else 0
    # 3.13 keeps the transports, earlier versions a count
    if hasattr(server, "_clients"):
        return parked + len(server._clients)
    return parked + int(server._active_count)
