"""The sockets of every Python server, the same for all arms."""

from __future__ import annotations

import socket

__all__ = ["BACKLOG", "datagrams_anywhere", "listen_anywhere"]

BACKLOG = 1024
DATAGRAM_BUFFER_BYTES = 1 << 20  # room for a burst of each client


def listen_anywhere() -> socket.socket:
    """Return a listener on a free local port.

    asyncio turns off Nagle's algorithm only for sockets made with IPPROTO_TCP, as it makes its own. Without it an HTTP
    request takes 40 ms, and the benchmark would compare a flag.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(BACKLOG)
    return listener


def datagrams_anywhere() -> socket.socket:
    """Return a datagram socket on a free local port."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, DATAGRAM_BUFFER_BYTES)
    sock.bind(("127.0.0.1", 0))
    sock.setblocking(False)
    return sock
