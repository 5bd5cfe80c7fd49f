"""The user of the other end of a TCP connection within this machine, from the kernel's table of sockets."""

from __future__ import annotations

import ipaddress
import socket
import sys

__all__ = ["is_loopback", "peer_uid"]

ESTABLISHED = "01"


def is_loopback(host: str) -> bool:
    """Return whether an address or a name means this machine alone."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0].strip("[]"))
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def peer_uid(sock: socket.socket) -> int | None:
    """Return the user that owns the other end's socket; None if the kernel does not say so.

    A socket that its process has closed belongs to no one, although the table says user 0: such a row does not count.
    """
    table = "/proc/net/tcp6" if sock.family == socket.AF_INET6 else "/proc/net/tcp"
    own, other = _text(sock.getsockname()), _text(sock.getpeername())
    try:
        with open(table, encoding="ascii") as rows:
            for row in rows:
                parts = row.split()
                # the row of the peer: its local address is the remote one here
                if len(parts) > 9 and parts[1:4] == [other, own, ESTABLISHED] and parts[9] != "0":
                    return int(parts[7])
    except (OSError, ValueError):
        return None
    return None


def _text(address: tuple[str, int] | tuple[str, int, int, int]) -> str:
    """Return an address in the form of the table: words in the machine's byte order."""
    host, port = address[:2]
    packed = ipaddress.ip_address(host.partition("%")[0]).packed
    words = [packed[at : at + 4] for at in range(0, len(packed), 4)]
    if sys.byteorder == "little":
        words = [word[::-1] for word in words]
    return f"{b''.join(words).hex().upper()}:{port:04X}"
