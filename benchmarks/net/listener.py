"""The listening socket every Python server is given: the same for all arms, as they differ in how they make theirs."""

from __future__ import annotations

import socket

__all__ = ["BACKLOG", "listen_anywhere"]

BACKLOG = 1024


def listen_anywhere() -> socket.socket:
    """A listener on a free local port.

    asyncio turns Nagle off only where the socket says IPPROTO_TCP, as those do that it makes from a host and a port;
    a socket made without it costs 40 ms per HTTP request, which would compare a flag and not the loops.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(BACKLOG)
    return listener
