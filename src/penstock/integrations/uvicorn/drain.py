"""Drains uvicorn's connections: requests that clients have sent are answered, then each idle connection is closed.

A request may be on its way on an idle connection, so it is closed only after it has been idle for a while. Until then a
request on it is answered with `Connection: close`.
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

# how long a connection must be idle before it is closed
IDLE_S = 0.5
PARTIAL_FACTOR = 4
# nothing notifies when a connection becomes idle
POLL_INTERVAL_S = 0.02
CLOSE = (b"connection", b"close")


def close_after_responses(server: uvicorn.Server) -> None:
    """Send `Connection: close` with each response that begins from now on."""
    # the header is an error in HTTP/2
    if getattr(server.config, "http2", False):
        return
    state = server.server_state
    state.default_headers = [*state.default_headers, CLOSE]
    for cycle in (getattr(connection, "cycle", None) for connection in state.connections):
        if cycle is not None and not cycle.response_started:
            cycle.default_headers = [*cycle.default_headers, CLOSE]


async def close_connections(server: uvicorn.Server, until_s: float, idle_s: float = IDLE_S) -> None:
    """Close the server's connections as they become idle. Wait for their end until `until_s` on the loop's clock."""
    loop, connections = asyncio.get_running_loop(), server.server_state.connections
    closing = _ClosingConnections(idle_s)
    accepted_until_s = loop.time() + idle_s * PARTIAL_FACTOR
    is_logged = False
    while (connections or (_has_unknown(server) and loop.time() < accepted_until_s)) and loop.time() < until_s:
        if server.force_exit:
            return
        closing.check(connections, loop.time())
        if not is_logged and connections and closing.has_only_busy(connections):
            is_logged = True
            logger.info("Waiting for connections to close. (CTRL+C to force quit)")
        await asyncio.sleep(min(POLL_INTERVAL_S, max(until_s - loop.time(), 0.0)))


def _has_unknown(server: uvicorn.Server) -> bool:
    """Return whether uvicorn does not know some connections: in a TLS handshake, or sending their last bytes."""
    return any(connection_count(each) > 0 for each in server.servers)


class _ClosingConnections:
    """The connections of one drain, and since when each is idle."""

    def __init__(self, idle_s: float) -> None:
        self._idle_s = idle_s
        # the start of each connection's idle time
        self._idle_since_s: dict[Any, float] = {}
        self._closed: set[Any] = set()

    def check(self, connections: set[Any], now_s: float) -> None:
        """Close each connection that can be closed without a loss."""
        for connection in list(connections):
            if connection in self._closed or connection.transport.is_closing():
                continue
            if not hasattr(connection, "cycle"):
                # a WebSocket, or HTTP/2: their protocols close in an orderly way themselves
                self._close(connection)
            elif _is_busy(connection):
                self._idle_since_s.pop(connection, None)
            elif now_s - self._idle_since_s.setdefault(connection, now_s) >= self._idle_s * _idle_factor(connection):
                self._close(connection)

    def has_only_busy(self, connections: set[Any]) -> bool:
        """Return whether none of the connections is idle."""
        return not any(connection in self._idle_since_s for connection in connections)

    def _close(self, connection: Any) -> None:
        self._closed.add(connection)
        connection.shutdown()


def _is_busy(connection: Any) -> bool:
    """Return whether uvicorn works on a request of this connection, or the kernel has bytes of one."""
    cycle = connection.cycle
    return (cycle is not None and not cycle.response_complete) or bool(_unread_bytes(connection))


def _idle_factor(connection: Any) -> int:
    """Return by how much the idle time is extended: a partial request may be completed.

    httptools' protocol makes a scope when a request begins, and a cycle with this scope when its headers end.
    """
    scope = getattr(connection, "scope", None)
    is_partial = scope is not None and getattr(connection.cycle, "scope", None) is not scope
    return PARTIAL_FACTOR if is_partial and hasattr(connection, "parser") else 1


def _unread_bytes(connection: Any) -> int:
    sock = connection.transport.get_extra_info("socket")
    try:
        counted = fcntl.ioctl(sock.fileno(), termios.FIONREAD, b"\0\0\0\0")
    except (OSError, ValueError, AttributeError):
        return 0
    count: int = struct.unpack("i", counted)[0]
    return count
