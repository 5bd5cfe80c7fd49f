"""The addresses of a server: as URLs for its log, as hosts for its other ports, as the files of Unix sockets."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from penstock.runtime.listening import DEFAULT_HOST
from penstock.runtime.socketfile import SocketFile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from penstock.runtime.listening import Binding

__all__ = ["default_host", "own_files", "urls"]


def urls(listeners: Sequence[socket.socket], *, is_tls: bool) -> str:
    """Return the addresses of bound sockets as URLs in one line."""
    return ", ".join(_url(listener, "https" if is_tls else "http") for listener in listeners)


def _url(listener: socket.socket, scheme: str) -> str:
    if listener.family == socket.AF_UNIX:
        return f"unix:{listener.getsockname()}"
    host, port = listener.getsockname()[:2]
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def default_host(bindings: Sequence[Binding]) -> str:
    """Return the host of the first TCP address; this machine's own without one."""
    return next((each.host for each in bindings if each.fd is None and each.uds is None), DEFAULT_HOST)


def own_files(bindings: Sequence[Binding], listeners: Sequence[socket.socket]) -> tuple[SocketFile, ...]:
    """Return the files of the Unix sockets that this server has bound itself."""
    own = (listener for binding, listener in zip(bindings, listeners, strict=True) if not binding.is_inherited)
    return tuple(file for file in map(SocketFile.of, own) if file is not None)
