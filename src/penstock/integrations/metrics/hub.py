"""The metrics of several workers in their parent: it asks a thread of each worker, and serves the ports they ask for.

An ended worker is gone from the next scrape. A worker that does not answer within `ANSWER_S` is missing from it, and is
not waited for again until it has answered. The application is not imported here. The supervisor of the workers owns the
hub.
"""

from __future__ import annotations

import errno
import json
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from penstock.integrations.metrics.families import from_workers
from penstock.integrations.metrics.reporter import CHANNEL, LENGTH, encode, receive, send
from penstock.integrations.worker_channels import WorkerChannels

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

__all__ = ["MetricsHub"]

# a worker's thread needs some 20 ms to collect its metrics, and more on a busy machine
ANSWER_S = 1.0
# for a worker's question to arrive whole
QUESTION_S = 5.0


class MetricsChannel:
    """The parent's end of one worker's channel."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._received = bytearray()
        # the number of the question that is not answered yet
        self._asked: int | None = None
        self.families: list[Any] | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether a question has no answer yet."""
        return self._asked is not None

    def ask(self, number: int, key: str) -> bool:
        """Ask; return False if an earlier question has no answer yet. Raises OSError when the worker has ended."""
        self.read()
        self.families = None
        if self._asked is not None:
            return False
        self.sock.send(encode({"number": number, "key": key}))
        self._asked = number
        return True

    def read(self) -> None:
        """Read the worker's answers. Raises OSError when the worker has ended."""
        with suppress(BlockingIOError):
            while part := self.sock.recv(1 << 20):
                self._received += part
            raise ConnectionResetError(errno.ECONNRESET, "the worker has ended")
        while (answer := self._message()) is not None:
            if answer["number"] == self._asked:
                self._asked, self.families = None, answer["families"]

    def _message(self) -> Any:
        if len(self._received) < LENGTH.size:
            return None
        end = LENGTH.size + LENGTH.unpack_from(self._received)[0]
        if len(self._received) < end:
            return None
        body = bytes(self._received[LENGTH.size : end])
        del self._received[:end]
        return json.loads(body)


class _WorkersCollector:
    """A collector for prometheus_client: one registry of all workers."""

    def __init__(self, hub: MetricsHub, key: str) -> None:
        self._hub, self._key = hub, key

    def collect(self) -> Iterator[Any]:
        """Return the families of all workers."""
        return from_workers(self._hub.collect(self._key))

    def describe(self) -> list[Any]:
        """Return no family: only the workers know them."""
        return []


class MetricsHub:
    """The metrics of all workers that have `handover`. Workers are numbered from 1; a number is used again.

    Ownership: the lock has the channels and the servers; `close` closes them.
    """

    def __init__(self) -> None:
        self._channels = WorkerChannels(MetricsChannel, blocking=True)
        self.handover = self._channels.handover
        self._lock = threading.Lock()
        self._questions = 0
        self._servers: dict[tuple[str, int, str], tuple[Any, threading.Thread]] = {}

    @property
    def workers(self) -> int:
        """The number of workers with a channel."""
        with self._lock:
            return len(self._channels)

    def start(self) -> None:
        """Receive channels and questions from now on."""
        threading.Thread(target=self._run, name="penstock-metrics-hub", daemon=True).start()

    def close(self) -> None:
        """Close the ports and the channels."""
        self._channels.interrupt()
        with self._lock:
            for server, thread in self._servers.values():
                server.shutdown()
                thread.join()
                server.server_close()
            self._servers.clear()
            self._channels.close()

    def collect(self, key: str) -> dict[str, list[Any] | None]:
        """Return each worker's families, by its number; None for a worker that has not answered in time."""
        with self._lock:
            self._questions += 1
            number = self._questions
            self._channels.ask(lambda channel: channel.ask(number, key), ANSWER_S)
            return {str(worker): channel.families for worker, channel in self._channels.items()}

    def _run(self) -> None:
        with suppress(OSError):
            while True:
                kind, sockets = self._channels.receive()
                for sock in sockets:
                    self._take(kind, sock)
                if not kind:
                    return

    def _take(self, kind: bytes, sock: socket.socket) -> None:
        if kind == CHANNEL:
            with self._lock:
                self._channels.add(sock)
        else:
            threading.Thread(target=self._reply, args=(sock,), daemon=True).start()

    def _reply(self, sock: socket.socket) -> None:
        """Answer one question of a worker's."""
        with suppress(OSError), sock:
            sock.settimeout(QUESTION_S)
            question = receive(sock)
            send(sock, self._serve(*question["serve"]) if "serve" in question else self.collect(question["key"]))

    def _serve(self, host: str, port: int, key: str) -> dict[str, Any]:
        """Serve on a port, once for all workers that ask for it. Return its number, or the error."""
        from prometheus_client import CollectorRegistry, start_http_server

        with self._lock:
            if (host, port, key) not in self._servers:
                registry = CollectorRegistry()
                registry.register(_WorkersCollector(self, key))
                try:
                    self._servers[host, port, key] = start_http_server(port, host, registry)
                except OSError as error:
                    return {"errno": error.errno, "error": error.strerror or str(error)}
            return {"port": self._servers[host, port, key][0].server_port}
