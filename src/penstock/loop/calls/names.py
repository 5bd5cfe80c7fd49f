"""Numeric names: look-ups that need no name server, answered in the loop's thread as `socket` answers them.

The C library answers a numeric address from a table of socket types and protocols, which depend on the arguments and
not on the address. The first answer for some arguments comes from `socket.getaddrinfo` itself, and is kept as a
template. Later answers put another address into it. Whatever is not surely the same is left to the look-up lane: names,
IPv4 addresses in short forms, scopes, services by name, and flags that depend on the machine.
"""

from __future__ import annotations

import socket
import sys
from typing import Any, TypeAlias

__all__ = ["NumericNames", "numeric_nameinfo"]

# The arguments as the audit event has them, and of each entry (family, type, protocol, canonical name).
Template: TypeAlias = "tuple[tuple[int, int, int], list[tuple[Any, Any, int, str]]]"

# plain integers: arithmetic on members of an enumeration costs as much as a look-up
IPV4, IPV6 = int(socket.AF_INET), int(socket.AF_INET6)
OTHER_FLAGS = ~int(socket.AI_PASSIVE | socket.AI_NUMERICHOST | socket.AI_NUMERICSERV)
NUMERIC_INFO = int(socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
MOST_TEMPLATES = 256
HIGHEST_PORT = 0xFFFF
PORT_DIGITS = 5
# What tests and programs replace is called in their place: only the standard library's own functions are known.
OWN_GETADDRINFO = socket.getaddrinfo if socket.getaddrinfo.__module__ == "socket" else None
OWN_GETNAMEINFO = socket.getnameinfo if getattr(socket.getnameinfo, "__module__", None) == "_socket" else None


class NumericNames:
    """Templates of the answers for numeric addresses: of one loop, at most 256."""

    __slots__ = ("_templates",)

    def __init__(self) -> None:
        self._templates: dict[tuple[Any, ...], Template] = {}

    def answer(self, host: Any, port: Any, family: Any, type_: Any, proto: Any, flags: Any) -> list[Any] | None:
        """Return what `socket.getaddrinfo` returns, a new list; None if it is to be asked. Raises its `gaierror`."""
        if socket.getaddrinfo is not OWN_GETADDRINFO:
            return None
        number = port_number(port)
        if number is None or not isinstance(flags, int) or int(flags) & OTHER_FLAGS:
            return None
        if host is None:
            # the order of the two loopback addresses is the machine's
            return socket.getaddrinfo(host, port, family, type_, proto, flags)
        kind, text = canonical(host)
        if not kind or not (family in (0, kind) and isinstance(type_, int) and isinstance(proto, int)):
            return None
        key = (kind, family, type_, proto, flags, port is None)
        template = self._templates.get(key)
        if template is None:
            return self._learn(key, socket.getaddrinfo(host, port, family, type_, proto, flags))
        sys.audit("socket.getaddrinfo", host, port, *template[0])
        address = (text, number) if kind == IPV4 else (text, number, 0, 0)
        return [(*entry, address) for entry in template[1]]

    def _learn(self, key: tuple[Any, ...], answer: list[Any]) -> list[Any]:
        if len(self._templates) < MOST_TEMPLATES:
            _, family, kind, proto, *_ = key
            self._templates[key] = (int(family), int(kind), int(proto)), [entry[:4] for entry in answer]
        return answer


def port_number(port: Any) -> int | None:
    """Return the number of a port in digits, 0 for None; None if the C library has to read it."""
    kind = type(port)
    if kind is int:
        return port if 0 <= port <= HIGHEST_PORT else None
    if port is None:
        return 0
    if kind not in (str, bytes) or not port.isdigit() or len(port) > PORT_DIGITS or not port.isascii():
        return None
    number = int(port)
    return number if number <= HIGHEST_PORT else None


def canonical(host: Any) -> tuple[int, str]:
    """Return the family and the canonical text of a numeric address; (0, "") for any other."""
    if type(host) is bytes:
        host = host.decode("latin-1")
    elif type(host) is not str:
        return 0, ""
    try:
        if ":" in host:
            return IPV6, socket.inet_ntop(IPV6, socket.inet_pton(IPV6, host))
        # taken in its canonical form alone
        socket.inet_pton(IPV4, host)
        return IPV4, host
    except (OSError, ValueError):
        return 0, ""


def numeric_nameinfo(sockaddr: Any, flags: Any) -> tuple[str, str] | None:
    """Return what `socket.getnameinfo` returns if both parts are to be numbers; None if it may take long."""
    if socket.getnameinfo is not OWN_GETNAMEINFO or type(flags) is not int or flags & NUMERIC_INFO != NUMERIC_INFO:
        return None
    return socket.getnameinfo(sockaddr, flags)
