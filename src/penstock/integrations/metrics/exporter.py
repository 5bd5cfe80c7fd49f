"""Exports this process's metrics to Prometheus: as an ASGI application, or on a port of its own. Extra `prometheus`.

The sources are the observers of all loops, the lanes of the loops that have some, and all gates.
"""

from __future__ import annotations

import asyncio
import functools
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self

from penstock.executors.lanes import lane_sets
from penstock.integrations.metrics.reporter import (
    PROCESS_REGISTRY,
    registry_by_key,
    registry_key,
    start_reporter,
    worker_reporter,
)
from penstock.pressure.admission.registry import registered
from penstock.pressure.overload.connections import memory_statistics
from penstock.pressure.overload.sheds import all_sheds
from penstock.tasks.observers.registry import observer_of, observers
from penstock.telemetry.readings import Sources

if TYPE_CHECKING:
    import socket
    import threading
    from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping

    from penstock.executors.counters import LaneStatistics
    from penstock.integrations.metrics.reporter import MetricsReporter
    from penstock.pressure.admission.gate import GateStatistics
    from penstock.tasks.records import SiteStatistics, TaskStatistics

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]

__all__ = ["MetricsApp", "MetricsServer", "join_workers", "metrics_app", "process_sources", "serve_metrics"]

PATH = "/metrics"
MISSING_EXTRA = "metrics need prometheus-client: pip install 'penstock[prometheus]'"


def process_sources() -> Sources:
    """Return the sources of this process's metrics, for other exporters; each reading covers every loop and gate."""
    return Sources(tasks=_tasks, lanes=_lanes, sites=_sites, gates=_gates, sheds=all_sheds, disconnects=_disconnects)


def _tasks() -> list[TaskStatistics]:
    return [observer.statistics() for observer in observers()]


def _lanes() -> dict[str, list[LaneStatistics]]:
    found: dict[str, list[LaneStatistics]] = {}
    for loop, lanes in lane_sets():
        found.setdefault(_loop_name(loop), []).extend(lanes.statistics().values())
    return found


def _sites() -> dict[str, list[SiteStatistics]]:
    found: dict[str, list[SiteStatistics]] = {}
    for observer in observers():
        found.setdefault(observer.statistics().loop, []).extend(observer.sites())
    return found


def _gates() -> list[GateStatistics]:
    return [gate.statistics() for gate in registered()]


def _disconnects() -> Mapping[str, int]:
    return memory_statistics().disconnects


def _loop_name(loop: asyncio.AbstractEventLoop) -> str:
    observer = observer_of(loop)
    if observer is not None:
        return observer.statistics().loop
    # a loop without an observer has no name: "asyncio" or "uvloop" stands for it
    return type(loop).__module__.partition(".")[0]


@functools.cache
def _process_registry() -> Any:
    """Return the registry of the process's own metrics. One for all: it decides which sites have a label."""
    try:
        from prometheus_client import CollectorRegistry
    except ImportError:
        raise ImportError(MISSING_EXTRA) from None
    from penstock.telemetry.prometheus import Collector

    registry = CollectorRegistry(auto_describe=True)
    registry.register(Collector(process_sources()))
    return registry


class MetricsApp:
    """An ASGI application that answers GET /metrics, alone, or mounted in another one at any path.

    It writes Prometheus's text format or OpenMetrics, by the Accept header. Without a `registry` (prometheus_client's)
    it exports this process's metrics; with one, the metrics registered there.
    """

    def __init__(self, registry: Any = None) -> None:
        self._registry = registry
        registry_key(registry)
        # a text of a thousand samples takes some 20 ms to write (measured), which would block the loop
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="penstock-metrics")

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request, or the server's lifespan messages."""
        if scope["type"] == "lifespan":
            await _serve_lifespan(receive, send)
        elif scope["type"] == "http":
            status, headers, body = await self._answer(scope)
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
        else:  # a WebSocket that is closed before it was accepted: the client reads 403
            await send({"type": "websocket.close"})

    async def _answer(self, scope: Message) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        if not _is_metrics_path(scope):
            return _text(404, f"metrics are at {PATH}\n")
        if scope["method"] not in {"GET", "HEAD"}:
            return _text(405, f"{PATH} takes GET, not {scope['method']}\n", (b"allow", b"GET, HEAD"))
        registry = self._registry if self._registry is not None else _process_registry()
        reporter = worker_reporter()
        if reporter is not None:
            registry = _AllWorkersRegistry(reporter, registry_key(self._registry))
        from prometheus_client.exposition import choose_encoder

        encode, content_type = choose_encoder(_accept_header(scope))
        try:
            body = await asyncio.get_running_loop().run_in_executor(self._writer, encode, registry)
        except OSError as error:
            if reporter is None:
                raise
            # this worker's counters alone would look like counters of all workers that have fallen
            return _text(503, f"the parent of the workers does not answer: {error}\n")
        return 200, [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode())], body


class _AllWorkersRegistry:
    """A registry of the metrics of all workers. Raises OSError if the parent does not answer."""

    def __init__(self, reporter: MetricsReporter, key: str) -> None:
        self._reporter, self._key = reporter, key

    def collect(self) -> Iterable[Any]:
        """Return the families of all workers, from the parent."""
        from penstock.integrations.metrics.families import from_plain

        return from_plain(self._reporter.ask({"key": self._key}))


metrics_app = MetricsApp()


def join_workers(handover: socket.socket) -> None:
    """Export the metrics of all workers from now on. `handover` is the socket of the parent that collects them."""
    start_reporter(handover, _collect_plain)


def _collect_plain(key: str) -> list[Any]:
    from penstock.integrations.metrics.families import to_plain

    try:
        registry = _process_registry() if key == PROCESS_REGISTRY else registry_by_key(key)
    except ImportError:
        # without the extra no page can show them
        return []
    return [] if registry is None else to_plain(registry.collect())


def _is_metrics_path(scope: Message) -> bool:
    """Return whether the path is /metrics below the root, or the root itself of a mounted application."""
    root, path = scope.get("root_path", "").rstrip("/"), scope["path"]
    # some servers leave the root in front of the path
    below = path[len(root) :] if root and (path == root or path.startswith(root + "/")) else path
    return below.rstrip("/") == PATH or (bool(root) and below in {"", "/"})


def _accept_header(scope: Message) -> str:
    return ",".join(value.decode("latin-1") for name, value in scope["headers"] if name.lower() == b"accept")


def _text(status: int, text: str, *headers: tuple[bytes, bytes]) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    body = text.encode()
    length = str(len(body)).encode()
    return status, [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", length), *headers], body


async def _serve_lifespan(receive: Receive, send: Send) -> None:
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


class MetricsServer:
    """A port that answers GET /metrics from a thread of its own, until `close`. A context manager too."""

    def __init__(self, server: Any, thread: threading.Thread) -> None:
        self._server = server
        self._thread = thread

    @property
    def port(self) -> int:
        """The number of the port."""
        port: int = self._server.server_port
        return port

    def close(self) -> None:
        """Stop answering, give the port back, and wait for the thread. A second call does nothing."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class _WorkersServer(MetricsServer):
    """A port that this worker's parent serves for all workers. It stays open when one worker closes it."""

    def __init__(self, port: int) -> None:
        self._port = port

    @property
    def port(self) -> int:
        """The number of the parent's port."""
        return self._port

    def close(self) -> None:
        """Do nothing: the port serves other workers too, and ends with the parent."""


def _serve_by_parent(reporter: MetricsReporter, port: int, host: str, registry: Any) -> MetricsServer:
    answer = reporter.ask({"serve": [host, port, registry_key(registry)]})
    if "error" in answer:
        raise _cannot_serve(host, port, answer["errno"], answer["error"])
    return _WorkersServer(answer["port"])


def _cannot_serve(host: str, port: int, number: int | None, reason: str) -> OSError:
    return OSError(number, f"cannot serve metrics on {host}:{port}: {reason}")


def serve_metrics(port: int, host: str = "127.0.0.1", *, registry: Any = None) -> MetricsServer:
    """Serve metrics on a port of their own, from a daemon thread: they are readable while the loop is blocked too.

    `port` is a number, 0 picks a free one. Without a `registry` (prometheus_client's) it serves this process's metrics.
    In a worker of `penstock serve` the parent listens, once for all workers, and each sample has the label `worker`.
    Returns the server, to be closed. Raises OSError, naming the address, if it cannot listen there, and ImportError
    without prometheus-client.
    """
    try:
        from prometheus_client import start_http_server
    except ImportError:
        raise ImportError(MISSING_EXTRA) from None
    reporter = worker_reporter()
    if reporter is not None:
        return _serve_by_parent(reporter, port, host, registry)
    try:
        server, thread = start_http_server(port, host, registry if registry is not None else _process_registry())
    except OSError as error:
        raise _cannot_serve(host, port, error.errno, error.strerror or str(error)) from None
    return MetricsServer(server, thread)
