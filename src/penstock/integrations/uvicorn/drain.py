"""The end of uvicorn's connections: what clients have sent is answered, then each quiet connection is closed.

A kept connection that is idle may have a request on its way. It is closed after a quiet moment. Until then a request on
it is answered with `Connection: close`.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import struct
import termios
from typing import TYPE_CHECKING, Any

from penstock.loop.servers import connection_count

if TYPE_CHECKING:
    import uvicorn

__all__ = ["close_after_responses", "close_connections"]

logger = logging.getLogger("uvicorn.error")

# so long nothing may come on an idle connection before it is closed
IDLE_S = 0.5
PATIENCE = 4
# nothing tells when a connection becomes quiet: look this often
POLL_INTERVAL_S = 0.02
CLOSE = (b"connection", b"close")


def close_after_responses(server: uvicorn.Server) -> None:
    """Have each answer that begins from now on say that it is its connection's last."""
    # in HTTP/2 the header would be an error
    if getattr(server.config, "http2", False):
        return
    state = server.server_state
    state.default_headers = [*state.default_headers, CLOSE]
    for cycle in (getattr(connection, "cycle", None) for connection in state.connections):
        if cycle is not None and not cycle.response_started:
            cycle.default_headers = [*cycle.default_headers, CLOSE]


async def close_connections(server: uvicorn.Server, until_s: float, quiet_s: float = IDLE_S) -> None:
    """Wait until the server's connections have ended, no longer than `until_s` on the loop's clock."""
    loop, connections = asyncio.get_running_loop(), server.server_state.connections
    ends = _ClosingConnections(quiet_s)
    made_until_s = loop.time() + quiet_s * PATIENCE
    is_told = False
    while (connections or (_has_more(server) and loop.time() < made_until_s)) and loop.time() < until_s:
        if server.force_exit:
            return
        ends.look(connections, loop.time())
        if not is_told and connections and ends.has_only_busy(connections):
            is_told = True
            logger.info("Waiting for connections to close. (CTRL+C to force quit)")
        await asyncio.sleep(min(POLL_INTERVAL_S, max(until_s - loop.time(), 0.0)))


def _has_more(server: uvicorn.Server) -> bool:
    """Whether a connection is accepted that uvicorn has not yet, in a TLS handshake, or no more, sending its last."""
    return any(connection_count(each) > 0 for each in server.servers)


class _ClosingConnections:
    """The connections that are to end, and since when each is idle. Ownership: it lives as long as one drain."""

    def __init__(self, quiet_s: float) -> None:
        self._quiet_s = quiet_s
        # since when a connection is idle
        self._since_s: dict[Any, float] = {}
        self._asked: set[Any] = set()

    def look(self, connections: set[Any], now_s: float) -> None:
        """End each connection that can be ended without a loss."""
        for connection in list(connections):
            if connection in self._asked or connection.transport.is_closing():
                continue
            if not hasattr(connection, "cycle"):
                # a WebSocket, or HTTP/2: their protocols say farewell by themselves
                self._end(connection)
            elif _is_busy(connection):
                self._since_s.pop(connection, None)
            elif now_s - self._since_s.setdefault(connection, now_s) >= self._quiet_s * _patience(connection):
                self._end(connection)

    def has_only_busy(self, connections: set[Any]) -> bool:
        """Whether no connection is waited for just because it is idle."""
        return not any(connection in self._since_s for connection in connections)

    def _end(self, connection: Any) -> None:
        self._asked.add(connection)
        connection.shutdown()


def _is_busy(connection: Any) -> bool:
    """Whether uvicorn works on a request of this connection, or the kernel has bytes of one."""
    cycle = connection.cycle
    return (cycle is not None and not cycle.response_complete) or bool(_unread_bytes(connection))


def _patience(connection: Any) -> int:
    """How much longer than an idle connection this one may be silent: a request that came in part may be completed.

    httptools' protocol makes a scope where a request begins, and a cycle of it where its headers end.
    """
    scope = getattr(connection, "scope", None)
    is_partial = scope is not None and getattr(connection.cycle, "scope", None) is not scope
    return PATIENCE if is_partial and hasattr(connection, "parser") else 1


def _unread_bytes(connection: Any) -> int:
    sock = connection.transport.get_extra_info("socket")
    try:
        told = fcntl.ioctl(sock.fileno(), termios.FIONREAD, b"\0\0\0\0")
    except (OSError, ValueError, AttributeError):
        return 0
    count: int = struct.unpack("i", told)[0]
    return count
