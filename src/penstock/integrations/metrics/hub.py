"""The metrics of several workers in their parent: it asks each worker's thread, and serves the ports they ask for.

Every worker hands it one end of a pair of sockets, through a socket that all workers share. A worker that has ended is
gone from the next scrape. One that does not answer within `ANSWER_S` is missing from it, and is not waited for again
until it has answered. The application is not imported here. Whatever supervises the workers owns the hub.
"""

from __future__ import annotations

import errno
import json
import select
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from penstock.integrations.metrics.families import from_workers
from penstock.integrations.metrics.link import LENGTH, LINK, receive, send

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MetricsHub"]

# a worker's thread has to write out its metrics: some 20 ms, and more on a busy machine
ANSWER_S = 1.0
# what a worker that asks has to say all of it
QUESTION_S = 5.0


class _Link:
    """The parent's end of one worker's link."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.setblocking(False)
        self._read = bytearray()
        # the number of the question that is not answered yet
        self.open: int | None = None
        self.families: list[Any] | None = None

    def ask(self, number: int, key: str) -> bool:
        """Ask. False if an earlier question is still open. Raises OSError when the worker has ended."""
        self.take()
        self.families = None
        if self.open is not None:
            return False
        body = json.dumps({"number": number, "key": key}).encode()
        self.sock.send(LENGTH.pack(len(body)) + body)
        self.open = number
        return True

    def take(self) -> None:
        """Read the worker's answers. Raises OSError when the worker has ended."""
        with suppress(BlockingIOError):
            while part := self.sock.recv(1 << 20):
                self._read += part
            raise ConnectionResetError(errno.ECONNRESET, "the worker has ended")
        while (answer := self._message()) is not None:
            if answer["number"] == self.open:
                self.open, self.families = None, answer["families"]

    def _message(self) -> Any:
        if len(self._read) < LENGTH.size:
            return None
        end = LENGTH.size + LENGTH.unpack_from(self._read)[0]
        if len(self._read) < end:
            return None
        body = bytes(self._read[LENGTH.size : end])
        del self._read[:end]
        return json.loads(body)


class _OfWorkers:
    """A collector for prometheus_client: one registry of all workers."""

    def __init__(self, hub: MetricsHub, key: str) -> None:
        self._hub, self._key = hub, key

    def collect(self) -> Iterator[Any]:
        """Ask the workers."""
        return from_workers(self._hub.collect(self._key))

    def describe(self) -> list[Any]:
        """Name no family: only the workers know them."""
        return []


class MetricsHub:
    """Has the metrics of all workers that got `handover`. Workers are numbered from 1; a number is used again."""

    def __init__(self) -> None:
        self._given, self.handover = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._lock = threading.Lock()
        self._links: dict[int, _Link] = {}
        self._asked = 0
        self._servers: dict[tuple[str, int, str], tuple[Any, threading.Thread]] = {}

    def start(self) -> None:
        """Take workers and their questions from now on."""
        threading.Thread(target=self._run, name="penstock-metrics-hub", daemon=True).start()

    def close(self) -> None:
        """Give back the ports and the links."""
        with suppress(OSError):
            self._given.shutdown(socket.SHUT_RDWR)
        with self._lock:
            for server, thread in self._servers.values():
                server.shutdown()
                thread.join()
                server.server_close()
            for sock in (self._given, self.handover, *(link.sock for link in self._links.values())):
                sock.close()
            self._servers.clear()
            self._links.clear()

    def collect(self, key: str) -> dict[str, list[Any] | None]:
        """Return each worker's families, by its number; None of one that has not answered in time."""
        with self._lock:
            self._asked += 1
            waited = [
                number for number, link in [*self._links.items()] if self._try(number, link.ask, self._asked, key)
            ]
            self._await(waited, time.monotonic() + ANSWER_S)
            return {str(number): link.families for number, link in sorted(self._links.items())}

    def _await(self, waited: list[int], end_s: float) -> None:
        while (links := self._unanswered(waited)) and (left_s := end_s - time.monotonic()) > 0:
            poll = select.poll()
            for link in links.values():
                poll.register(link.sock, select.POLLIN)
            poll.poll(left_s * 1000)
            for number, link in links.items():
                self._try(number, link.take)

    def _unanswered(self, numbers: list[int]) -> dict[int, _Link]:
        return {
            each: self._links[each] for each in numbers if each in self._links and self._links[each].open is not None
        }

    def _try(self, number: int, call: Any, *arguments: Any) -> Any:
        """Call it; a worker that has ended is dropped."""
        try:
            return call(*arguments)
        except OSError:
            self._links.pop(number).sock.close()
            return False

    def _run(self) -> None:
        with suppress(OSError):
            while True:
                kind, numbers, _, _ = socket.recv_fds(self._given, 16, 1)
                for number in numbers:
                    sock = socket.socket(fileno=number)
                    if kind == LINK:
                        self._add(sock)
                    else:
                        threading.Thread(target=self._reply, args=(sock,), daemon=True).start()
                if not kind:
                    return

    def _add(self, sock: socket.socket) -> None:
        with self._lock:
            for number, link in [*self._links.items()]:
                self._try(number, link.take)
            free = next(number for number in range(1, len(self._links) + 2) if number not in self._links)
            self._links[free] = _Link(sock)

    def _reply(self, sock: socket.socket) -> None:
        """Answer one question of a worker's."""
        with suppress(OSError), sock:
            sock.settimeout(QUESTION_S)
            question = receive(sock)
            send(sock, self._serve(*question["serve"]) if "serve" in question else self.collect(question["key"]))

    def _serve(self, host: str, port: int, key: str) -> dict[str, Any]:
        """Serve on a port, unless another worker has asked for the same: where, or why not."""
        from prometheus_client import CollectorRegistry, start_http_server

        with self._lock:
            if (host, port, key) not in self._servers:
                registry = CollectorRegistry()
                registry.register(_OfWorkers(self, key))
                try:
                    self._servers[host, port, key] = start_http_server(port, host, registry)
                except OSError as error:
                    return {"errno": error.errno, "error": error.strerror or str(error)}
            return {"port": self._servers[host, port, key][0].server_port}
