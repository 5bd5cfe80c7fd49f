"""A worker's reporter of metrics to its parent, which has the metrics of all workers: JSON messages from a thread.

The parent asks on the worker's channel, and the thread answers while the loop is blocked too. A worker that is scraped
itself asks the parent, on a channel for that one question.
"""

from __future__ import annotations

import errno
import json
import os
import struct
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from penstock.integrations.worker_channels import send_channel

if TYPE_CHECKING:
    import logging
    import socket
    from collections.abc import Callable

__all__ = [
    "CHANNEL",
    "LENGTH",
    "PROCESS_REGISTRY",
    "QUESTION",
    "MetricsReporter",
    "encode",
    "receive",
    "registry_by_key",
    "registry_key",
    "send",
    "send_last_report",
    "start_reporter",
    "worker_reporter",
]

# the kinds of channels: for the parent's questions, or for one question of the worker's
CHANNEL, QUESTION = b"link", b"ask"
# the parent waits for its workers no longer than a second
ASK_S = 5.0
# for the last report of a worker that ends
LAST_REPORT_S = 1.0
# some 200,000 samples
MOST_ANSWER_BYTES = 1 << 25
LENGTH = struct.Struct("!I")
PROCESS_REGISTRY = "own"


def send(sock: socket.socket, message: Any) -> None:
    """Send a whole message."""
    sock.sendall(encode(message))


def encode(message: Any) -> bytes:
    """Return a message as bytes: its length, then JSON."""
    body = json.dumps(message).encode()
    return LENGTH.pack(len(body)) + body


def receive(sock: socket.socket) -> Any:
    """Wait for a message, and return it. Raises OSError when the other process has ended."""
    (length,) = LENGTH.unpack(_receive_exactly(sock, LENGTH.size))
    return json.loads(_receive_exactly(sock, length))


def _receive_exactly(sock: socket.socket, count: int) -> bytes:
    body = bytearray()
    while len(body) < count:
        part = sock.recv(count - len(body))
        if not part:
            raise ConnectionResetError(errno.ECONNRESET, "the other process has ended")
        body += part
    return bytes(body)


class MetricsReporter:
    """Answers the parent's questions, and puts the worker's own. `collect(key)` returns a registry's families."""

    def __init__(self, handover: socket.socket, collect: Callable[[str], list[Any]]) -> None:
        self._handover, self._collect = handover, collect

    def start(self) -> None:
        """Answer from now on, until either process ends."""
        threading.Thread(target=self._run, name="penstock-metrics-reporter", daemon=True).start()

    def ask(self, question: dict[str, Any], most_s: float = ASK_S) -> Any:
        """Put a question to the parent, and return the answer. Raises OSError when it does not answer in time."""
        with send_channel(self._handover, QUESTION, most_s=most_s) as channel:
            channel.settimeout(most_s)
            send(channel, question)
            return receive(channel)

    def _run(self) -> None:
        with suppress(OSError), send_channel(self._handover, CHANNEL, closes_at_fork=True) as channel:
            while True:
                question = receive(channel)
                channel.sendall(self._answer(question["number"], question["key"]))

    def _answer(self, number: int, key: str) -> bytes:
        answer = encode({"number": number, "families": self._families(key)})
        if len(answer) <= MOST_ANSWER_BYTES:
            return answer
        _log().error("worker %d has too many metrics: %d bytes, limit %d", os.getpid(), len(answer), MOST_ANSWER_BYTES)
        return encode({"number": number, "families": []})

    def _families(self, key: str) -> list[Any]:
        try:
            return self._collect(key)
        except Exception:
            # a failing collector of the program costs its own worker's metrics alone
            _log().exception("cannot collect the metrics of worker %d", os.getpid())
            return []


def _log() -> logging.Logger:
    import logging

    return logging.getLogger("penstock.metrics")


_reporter: MetricsReporter | None = None
# by their order: each worker runs the same program, which makes them in the same order
_registries: list[Any] = []


def registry_key(registry: Any) -> str:
    """Return the key of a registry, the same in each worker; for None the key of the process's own registry."""
    if registry is None:
        return PROCESS_REGISTRY
    if not any(registry is known for known in _registries):
        _registries.append(registry)
    return str(next(number for number, known in enumerate(_registries) if known is registry))


def registry_by_key(key: str) -> Any:
    """Return the registry with this key; None if this worker has none."""
    return _registries[int(key)] if int(key) < len(_registries) else None


def worker_reporter() -> MetricsReporter | None:
    """Return this worker's reporter; None in a process that is no worker."""
    return _reporter


def start_reporter(handover: socket.socket, collect: Callable[[str], list[Any]]) -> None:
    """Make this process a worker of the parent that has the other end of `handover`."""
    global _reporter
    _reporter = MetricsReporter(handover, collect)
    _reporter.start()


def send_last_report(most_s: float = LAST_REPORT_S) -> bool:
    """Have the parent count what this worker has counted, before the worker ends. Return whether it has.

    It blocks for at most about `most_s` seconds. Does nothing in a process that is no worker.
    """
    if _reporter is None:
        return False
    try:
        _reporter.ask({"last": [PROCESS_REGISTRY, *map(str, range(len(_registries)))]}, most_s)
    except OSError:
        return False
    return True
