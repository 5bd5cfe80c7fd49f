"""The metrics of several workers in their parent: it asks a thread of each worker, and serves the ports they ask for.

What workers count is added up, and stays when they end. For a worker that does not answer within `ANSWER_S` its last
answer counts; it is not waited for again until it has answered. The application is not imported here. The supervisor of
the workers owns the hub.
"""

from __future__ import annotations

import errno
import json
import logging
import socket
import struct
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from penstock.integrations.metrics.families import WORKER, from_plain, merged, plain_family, without_summed
from penstock.integrations.metrics.reporter import CHANNEL, LENGTH, PROCESS_REGISTRY, encode, receive, send
from penstock.integrations.metrics.totals import SeriesTotals, WorkerCounts
from penstock.integrations.worker_channels import WorkerChannels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["MetricsHub"]

logger = logging.getLogger("penstock.metrics")

# a worker's thread needs some 20 ms to collect its metrics, and more on a busy machine
ANSWER_S = 1.0
# for a worker's question to arrive whole
QUESTION_S = 5.0


LEFT_OUT = "penstock_worker_samples_left_out"
LEFT_OUT_TEXT = "Samples of counters and histograms for which the sums over all workers had no room."
# pid, uid, gid
CREDENTIALS = struct.Struct("3i")


class MetricsChannel:
    """The parent's end of one worker's channel. `account(channel, key, families)` takes each answer, a late one too."""

    def __init__(self, sock: socket.socket, account: Callable[[MetricsChannel, str, list[Any]], None]) -> None:
        self.sock = sock
        self.pid = _peer_pid(sock)
        self.counts = WorkerCounts()
        self._account = account
        self._received = bytearray()
        # the question that is not answered yet
        self._asked: tuple[int, str] | None = None
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
        self._asked = number, key
        return True

    def read(self) -> None:
        """Read the worker's answers. Raises OSError when the worker has ended, after its last answer."""
        has_ended = self._receive()
        while (answer := self._message()) is not None:
            if self._asked is not None and answer["number"] == self._asked[0]:
                key, self._asked = self._asked[1], None
                self._account(self, key, answer["families"])
                self.families = without_summed(answer["families"])
        if has_ended:
            raise ConnectionResetError(errno.ECONNRESET, "the worker has ended")

    def _receive(self) -> bool:
        """Receive what has come. Return whether the worker has ended."""
        try:
            while part := self.sock.recv(1 << 20):
                self._received += part
        except BlockingIOError:
            return False
        except ConnectionError:
            pass
        return True

    def _message(self) -> Any:
        if len(self._received) < LENGTH.size:
            return None
        end = LENGTH.size + LENGTH.unpack_from(self._received)[0]
        if len(self._received) < end:
            return None
        body = bytes(self._received[LENGTH.size : end])
        del self._received[:end]
        return json.loads(body)


def _peer_pid(sock: socket.socket) -> int:
    """Return the process that made the other end."""
    pid: int = CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size))[0]
    return pid


class _WorkersCollector:
    """A collector for prometheus_client: one registry of all workers."""

    def __init__(self, hub: MetricsHub, key: str) -> None:
        self._hub, self._key = hub, key

    def collect(self) -> Iterator[Any]:
        """Return the families of all workers."""
        return from_plain(self._hub.collect(self._key))

    def describe(self) -> list[Any]:
        """Return no family: only the workers know them."""
        return []


class MetricsHub:
    """The metrics of all workers that have `handover`. Workers are numbered from 1; a number is used again.

    `own_families` returns the parent's own families, by `plain_family`, for the page of the process's own metrics.
    Ownership: the lock has the channels, the totals and the servers; `close` closes the channels and servers.
    """

    def __init__(self, own_families: Callable[[], Iterable[list[Any]]] | None = None) -> None:
        self._own_families = own_families
        self._totals = SeriesTotals()
        self._channels = WorkerChannels(lambda sock: MetricsChannel(sock, self._account), blocking=True)
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

    def close_ports(self) -> None:
        """Close the ports, so that another process may have them."""
        with self._lock:
            for server, thread in self._servers.values():
                server.shutdown()
                thread.join()
                server.server_close()

    def open_ports(self) -> None:
        """Open the ports again, after `close_ports`."""
        with self._lock:
            asked = [(host, server.server_port, key) for (host, _, key), (server, _) in self._servers.items()]
            self._servers.clear()
        for host, port, key in asked:
            self._serve(host, port, key)

    def collect(self, key: str) -> list[list[Any]]:
        """Return the plain families of all workers and, with the process's own registry, those of the parent."""
        with self._lock:
            self._ask(key, lambda channel: True)
            workers = {str(worker): channel for worker, channel in self._channels.items()}
            page = merged(self._totals.families(key), {worker: channel.families for worker, channel in workers.items()})
            for channel in workers.values():
                channel.families = None
        left_out = [({WORKER: each}, channel.counts.left_out.get(key, 0)) for each, channel in workers.items()]
        page.append(plain_family(LEFT_OUT, LEFT_OUT_TEXT, "gauge", left_out))
        return page + (self._own() if key == PROCESS_REGISTRY else [])

    def _ask(self, key: str, is_asked: Callable[[MetricsChannel], bool]) -> None:
        self._questions += 1
        number = self._questions
        self._channels.ask(lambda channel: is_asked(channel) and channel.ask(number, key), ANSWER_S)

    def _account(self, channel: MetricsChannel, key: str, families: list[Any]) -> None:
        living = [each.counts for _, each in self._channels.items()]
        self._totals.account(key, families, channel.counts, living)

    def _own(self) -> list[list[Any]]:
        if self._own_families is None:
            return []
        try:
            return [*self._own_families()]
        except Exception:
            # the workers' metrics do not end for it
            logger.exception("cannot collect the metrics of the parent")
            return []

    def _take_last(self, pid: int, keys: list[str]) -> None:
        """Ask a worker that is about to end for what it has counted."""
        with self._lock:
            for key in keys:
                self._ask(key, lambda channel: channel.pid == pid)

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
            send(sock, self._answer(question, _peer_pid(sock)))

    def _answer(self, question: dict[str, Any], pid: int) -> Any:
        if "serve" in question:
            return self._serve(*question["serve"])
        if "last" in question:
            return self._take_last(pid, question["last"])
        return self.collect(question["key"])

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
