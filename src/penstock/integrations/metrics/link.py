"""A worker's link to its parent, which has the metrics of all workers: JSON messages on sockets, from a thread.

The parent asks on a link that it was handed, and the worker's thread answers: while the loop is blocked too. A worker
that is scraped itself asks the parent, on a socket of the moment.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import struct
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "ASK",
    "LENGTH",
    "LINK",
    "OWN",
    "MetricsLink",
    "join_parent",
    "parent_link",
    "receive",
    "registry_key",
    "registry_of",
    "send",
]

# what a socket that is handed to the parent is for: questions to this worker, or one question of this worker's
LINK, ASK = b"link", b"ask"
# the parent waits for its workers no longer than a second
ASK_S = 5.0
LENGTH = struct.Struct("!I")
OWN = "own"


def send(sock: socket.socket, message: Any) -> None:
    """Send a message whole."""
    body = json.dumps(message).encode()
    sock.sendall(LENGTH.pack(len(body)) + body)


def receive(sock: socket.socket) -> Any:
    """Wait for a message. Raises OSError when the other side has ended."""
    (length,) = LENGTH.unpack(_exactly(sock, LENGTH.size))
    return json.loads(_exactly(sock, length))


def _exactly(sock: socket.socket, count: int) -> bytes:
    body = bytearray()
    while len(body) < count:
        part = sock.recv(count - len(body))
        if not part:
            raise ConnectionResetError(errno.ECONNRESET, "the other process has ended")
        body += part
    return bytes(body)


class MetricsLink:
    """In a worker: answers the parent's questions and puts its own. `collect` gives the families of a registry."""

    def __init__(self, handover: socket.socket, collect: Callable[[str], list[Any]]) -> None:
        self._handover, self._collect = handover, collect

    def start(self) -> None:
        """Answer from now on, until either process ends."""
        threading.Thread(target=self._run, name="penstock-metrics-link", daemon=True).start()

    def ask(self, question: dict[str, Any]) -> Any:
        """Put a question to the parent. Raises OSError when it does not answer."""
        ours, parents = socket.socketpair()
        with ours:
            with parents:
                socket.send_fds(self._handover, [ASK], [parents.fileno()])
            ours.settimeout(ASK_S)
            send(ours, question)
            return receive(ours)

    def _run(self) -> None:
        ours, parents = socket.socketpair()
        # a process that the application forks lives on after the worker: the link must end with the worker
        os.register_at_fork(after_in_child=ours.close)
        with suppress(OSError), ours:
            with parents:
                socket.send_fds(self._handover, [LINK], [parents.fileno()])
            while True:
                question = receive(ours)
                send(ours, {"number": question["number"], "families": self._families(question["key"])})

    def _families(self, key: str) -> list[Any]:
        try:
            return self._collect(key)
        except Exception:
            # a collector of the program's that raises takes nothing but its own worker's metrics away
            import logging

            logging.getLogger("penstock.metrics").exception("the metrics of worker %d could not be taken", os.getpid())
            return []


_link: MetricsLink | None = None
# by their order: each worker runs the same program, which makes them in the same order
_registries: list[Any] = []


def registry_key(registry: Any) -> str:
    """Return the name of a registry, the same in each worker; of None the name of the process's own."""
    if registry is None:
        return OWN
    if not any(registry is known for known in _registries):
        _registries.append(registry)
    return str(next(number for number, known in enumerate(_registries) if known is registry))


def registry_of(key: str) -> Any:
    """Return the registry of that name; None where this worker has none."""
    return _registries[int(key)] if int(key) < len(_registries) else None


def parent_link() -> MetricsLink | None:
    """Return the link of this worker; None in a process that has the metrics for itself."""
    return _link


def join_parent(handover: socket.socket, collect: Callable[[str], list[Any]]) -> None:
    """Become one of the workers of the parent that has the other end of `handover`."""
    global _link
    _link = MetricsLink(handover, collect)
    _link.start()
