"""Binds the listening sockets of a server before it starts: all of them or none, and an error is one line."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from penstock.runtime.socketfile import DEFAULT_MODE, SocketFile, bind_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence

__all__ = [
    "DEFAULT_HOST",
    "DEFAULT_PORT",
    "Binding",
    "check_distinct",
    "inherited_bindings",
    "listening",
    "parse_binding",
]

# the first descriptor of systemd's socket activation, and its variables
FIRST_FD = 3
LISTEN_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")
FORMS = "HOST:PORT, [IPV6]:PORT, :PORT, unix:PATH or fd:N"
ALL_IPV4, ALL_IPV6 = ("", "0.0.0.0"), "::"
DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8000


@dataclass(frozen=True, slots=True)
class Binding:
    """The address of a server: an inherited socket `fd`, else a Unix socket's path `uds`, else `host` and `port`.

    `port` is a number; 0 picks a free one. `mode` is the mode of a Unix socket's file, 0o666 for None, and `owner` its
    `USER`, `USER:GROUP` or `:GROUP`, the process's own for None.
    """

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    uds: str | None = None
    # the descriptor of an open socket, such as systemd's socket activation passes on
    fd: int | None = None
    mode: int | None = None
    owner: str | None = None
    # the name that systemd gives the descriptor
    fd_name: str = ""

    def __str__(self) -> str:
        if self.fd is not None:
            return f"file descriptor {self.fd}" + (f" ({self.fd_name})" if self.fd_name else "")
        if self.uds is not None:
            return self.uds
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_inherited(self) -> bool:
        """Whether the socket is another program's too: it stays as it is when the server ends."""
        return self.fd is not None


def parse_binding(text: str) -> Binding:
    """Return the address that a text names: HOST:PORT, [IPV6]:PORT, :PORT, unix:PATH or fd:N.

    `:PORT` is the port on all IPv4 addresses. Raises ValueError for anything else.
    """
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path or "\0" in path:
            raise ValueError(f"{text!r} is not an address: unix: needs the path of a file")
        return Binding(uds=path)
    if text.startswith("fd:"):
        return Binding(fd=_number(text, text.removeprefix("fd:"), 2**31 - 1, "a descriptor's number"))
    host, colon, port = text.rpartition(":")
    if not colon:
        raise ValueError(f"{text!r} is not an address: allowed is {FORMS}")
    return Binding(_host(text, host), _number(text, port, 65535, "a port, 0 to 65535"))


def _host(text: str, host: str) -> str:
    if host.startswith("[") and host.endswith("]") and ":" in host:
        return host[1:-1]
    if any(character in "[]:/@" or character.isspace() or character == "\0" for character in host):
        raise ValueError(f"{text!r} is not an address: allowed is {FORMS}")
    return host or "0.0.0.0"


def _number(text: str, digits: str, most: int, what: str) -> int:
    if not digits.isascii() or not digits.isdigit() or len(digits) > 10 or int(digits) > most:
        raise ValueError(f"{text!r} is not an address: {digits!r} is not {what}; allowed is {FORMS}")
    return int(digits)


def inherited_bindings(environ: MutableMapping[str, str]) -> list[Binding]:
    """Take the sockets that systemd passes to this process by LISTEN_FDS; none without them.

    The variables are removed and the descriptors closed at an exec, so that no child takes them. Raises ValueError for
    variables that make no sense, and OSError for a descriptor that is not open.
    """
    variables = {name: environ.pop(name, "") for name in LISTEN_VARIABLES}
    if variables["LISTEN_PID"] != str(os.getpid()):
        return []
    count, names = _fd_count(variables), variables["LISTEN_FDNAMES"].split(":")
    named = names if len(names) == count else [""] * count
    # systemd's word for a descriptor without a name
    bindings = [
        Binding(fd=FIRST_FD + index, fd_name="" if name == "unknown" else name) for index, name in enumerate(named)
    ]
    for binding in bindings:
        try:
            os.set_inheritable(binding.fd or 0, False)
        except OSError as error:
            raise OSError(error.errno, f"LISTEN_FDS={count}: {binding} is not open") from None
    return bindings


def _fd_count(variables: Mapping[str, str]) -> int:
    text = variables["LISTEN_FDS"]
    most = os.sysconf("SC_OPEN_MAX") - FIRST_FD
    if not text.isascii() or not text.isdigit() or len(text) > 10 or int(text) > most:
        raise ValueError(f"LISTEN_FDS={text!r} is not a count of descriptors")
    return int(text)


@contextmanager
def listening(
    bindings: Sequence[Binding], taken: Sequence[socket.socket] = (), keeps_files: Callable[[], bool] = bool
) -> Iterator[list[socket.socket]]:
    """Bind all sockets for the block, in the order given, then close them and remove the files of Unix sockets.

    `taken` are sockets that another process of this service has bound to these addresses, instead of new ones. With
    `keeps_files()` true at the end, another process goes on with the files. A TCP socket holds its address and does not
    listen yet. Raises OSError with the address that cannot be had, and ValueError for one that is given twice; no
    socket is bound then.
    """
    check_distinct(bindings)
    with ExitStack() as stack:
        sockets = []
        for index, binding in enumerate(bindings):
            sock = taken[index] if taken else _bind(binding, bindings)
            sockets.append(stack.enter_context(closing(sock)))
            if not binding.is_inherited:
                stack.enter_context(_own_file(sock, keeps_files))
        yield sockets


def check_distinct(bindings: Sequence[Binding]) -> None:
    """Raise ValueError for an address that is given twice."""
    seen = set()
    for binding in bindings:
        address = _identity(binding)
        if address in seen:
            raise ValueError(f"{binding} is given twice")
        # a free port is another one each time
        if binding.port != 0 or address[0] != "tcp":
            seen.add(address)


def _identity(binding: Binding) -> tuple[str, object]:
    if binding.fd is not None:
        return "fd", binding.fd
    if binding.uds is not None:
        return "unix", os.path.realpath(binding.uds)
    return "tcp", (ALL_IPV4[1] if binding.host in ALL_IPV4 else binding.host.lower(), binding.port)


@contextmanager
def _own_file(listener: socket.socket, keeps_files: Callable[[], bool]) -> Iterator[None]:
    """Remove the file of a Unix socket after the block, if this process still has it."""
    file = SocketFile.of(listener)
    try:
        yield
    finally:
        if file is not None and not keeps_files():
            file.remove()


def _bind(binding: Binding, beside: Sequence[Binding]) -> socket.socket:
    if binding.fd is not None:
        return _inherited(binding.fd, binding)
    return _bind_uds(binding.uds, binding) if binding.uds is not None else _bind_tcp(binding, beside)


def _inherited(fd: int, binding: Binding) -> socket.socket:
    try:
        listener = socket.socket(fileno=fd)
    except OSError as error:
        raise OSError(errno.EBADF, f"cannot listen on {binding}: {error.strerror or error}") from None
    reason = _unfit(listener)
    if not reason:
        # no program that the application starts inherits it
        listener.set_inheritable(False)
        return listener
    # it is another program's
    listener.detach()
    raise OSError(errno.EBADF, f"cannot listen on {binding}: {reason}")


def _unfit(listener: socket.socket) -> str:
    """Return why a socket that was passed cannot be listened on; an empty text if it can."""
    if listener.type != socket.SOCK_STREAM:
        return "not a stream socket"
    try:
        listener.getpeername()
    except OSError:
        return ""
    return "a connection, not a listening socket; a systemd unit needs Accept=no"


def _bind_tcp(binding: Binding, beside: Sequence[Binding]) -> socket.socket:
    try:
        found = socket.getaddrinfo(binding.host or None, binding.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise OSError(error.errno, f"cannot listen on {binding}: {error.strerror}") from None
    except UnicodeError:
        raise OSError(errno.EINVAL, f"cannot listen on {binding}: not a host name") from None
    family, kind, number, _, address = found[0]
    listener = socket.socket(family, kind, number)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if binding.host == ALL_IPV6 and _has_all_ipv4(binding.port, beside):
            # by default it takes the IPv4 addresses too, which another socket has here
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        if binding.port != 0:
            _claim(listener)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"cannot listen on {binding}: {_reason(error)}") from None
    return listener


def _has_all_ipv4(port: int, beside: Sequence[Binding]) -> bool:
    return any(_identity(other) == ("tcp", (ALL_IPV4[1], port)) for other in beside)


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
        return f"{reason}; stop what listens there or choose another port (0 picks a free one)"
    if error.errno == errno.EACCES:
        return f"{reason}; ports below 1024 need privileges, choose a higher port"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{reason}; the host must be an address of this machine"
    return reason


def _bind_uds(path: str, binding: Binding) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    try:
        bind_file(listener, path, DEFAULT_MODE if binding.mode is None else binding.mode, binding.owner)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"cannot listen on {path}: {error.strerror or error}") from None
    except ValueError:
        listener.close()
        raise
    return listener
