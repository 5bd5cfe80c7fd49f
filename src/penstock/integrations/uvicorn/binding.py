"""Binds the listening socket of a server, before uvicorn starts: a port in use is one clear error."""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Binding", "listening", "remove_socket_file"]


@dataclass(frozen=True, slots=True)
class Binding:
    """The address of a server: an inherited socket `fd`, else a Unix socket's path `uds`, else `host` and `port`.

    `port` is a number; 0 picks a free one.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    uds: str | None = None
    # the descriptor of an open socket, such as systemd's socket activation passes on
    fd: int | None = None

    def __str__(self) -> str:
        if self.fd is not None:
            return f"file descriptor {self.fd}"
        if self.uds is not None:
            return self.uds
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@contextmanager
def listening(binding: Binding) -> Iterator[socket.socket]:
    """Bind a socket for the block, then close it and remove a Unix socket's file. Raises OSError with the address."""
    listener = _bind(binding)
    listener.set_inheritable(True)
    try:
        yield listener
    finally:
        listener.close()
        remove_socket_file(binding.uds)


def remove_socket_file(uds: str | None) -> None:
    """Remove the file of a Unix socket, if there is one."""
    if uds is not None:
        with suppress(OSError):
            os.unlink(uds)


def _bind(binding: Binding) -> socket.socket:
    if binding.fd is not None:
        return _inherited(binding)
    return _bind_uds(binding.uds) if binding.uds is not None else _bind_tcp(binding)


def _inherited(binding: Binding) -> socket.socket:
    try:
        listener = socket.socket(fileno=binding.fd)
        if listener.type == socket.SOCK_STREAM:
            return listener
        reason = "not a stream socket"
    except OSError as error:
        reason = error.strerror or str(error)
    raise OSError(errno.EBADF, f"cannot listen on {binding}: {reason}")


def _bind_tcp(binding: Binding) -> socket.socket:
    try:
        found = socket.getaddrinfo(binding.host or None, binding.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise OSError(error.errno, f"cannot listen on {binding}: {error.strerror}") from None
    family, kind, number, _, address = found[0]
    listener = socket.socket(family, kind, number)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        if binding.port != 0:
            _claim(listener)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"cannot listen on {binding}: {_reason(error)}") from None
    return listener


def _claim(listener: socket.socket) -> None:
    """Claim the port before anything listens on it: another server on the same port fails at once."""
    listener.listen()
    with suppress(OSError):
        # it stops listening and stays bound
        listener.shutdown(socket.SHUT_RD)
        # without it no other socket can bind the port; the server sets it again before it listens
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)


def _reason(error: OSError) -> str:
    reason = os.strerror(error.errno) if error.errno else str(error)
    if error.errno == errno.EADDRINUSE:
        return f"{reason}; stop what listens there or choose another --port (0 picks a free one)"
    if error.errno == errno.EACCES:
        return f"{reason}; ports below 1024 need privileges, choose a higher --port"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{reason}; --host must be an address of this machine"
    return reason


def _bind_uds(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    try:
        _remove_stale(path)
        listener.bind(path)
        os.chmod(path, 0o666)  # as uvicorn: the directory decides which users may connect
        # at once: a socket file without a listener counts as stale
        listener.listen()
    except OSError as error:
        listener.close()
        reason = os.strerror(error.errno) if error.errno else str(error)
        if error.errno == errno.EEXIST:
            reason = "a file is there that is not a socket; remove it or choose another --uds"
        raise OSError(error.errno, f"cannot listen on {path}: {reason}") from None
    return listener


def _remove_stale(path: str) -> None:
    # A socket file outlives its server; it can be removed if no server accepts there.
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise FileExistsError(errno.EEXIST, path)
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
