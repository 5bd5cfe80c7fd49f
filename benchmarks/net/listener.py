"""The listening socket of every Python server, the same for all arms."""

from __future__ import annotations

import socket

__all__ = ["BACKLOG", "listen_anywhere"]

BACKLOG = 1024


def listen_anywhere() -> socket.socket:
    """Return a listener on a free local port.

    asyncio turns off Nagle's algorithm only for sockets made with IPPROTO_TCP, as it makes its own. Without it an HTTP
    request takes 40 ms, and the benchmark would compare a flag.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(BACKLOG)
    return listener
