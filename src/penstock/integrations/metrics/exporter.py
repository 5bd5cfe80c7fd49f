"""Hands this process's metrics to Prometheus: as an ASGI application, or on a port of its own. Extra `prometheus`.

Wires the sources: the observers of all loops, the lanes of those that have run with some, and all gates.
"""

from __future__ import annotations

import asyncio
import functools
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self

from penstock.executors.lanes import lane_sets
from penstock.integrations.metrics.link import OWN, join_parent, parent_link, registry_key, registry_of
from penstock.pressure.admission.registry import gates
from penstock.pressure.overload.connections import memory_statistics
from penstock.pressure.overload.sheds import all_sheds
from penstock.tasks.observers.registry import observer_of, observers
from penstock.telemetry.readings import Sources

if TYPE_CHECKING:
    import socket
    import threading
    from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping

    from penstock.executors.counters import LaneStatistics
    from penstock.integrations.metrics.link import MetricsLink
    from penstock.pressure.admission.gate import GateStatistics
    from penstock.tasks.records import SiteStatistics, TaskStatistics

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]

__all__ = ["MetricsApp", "MetricsServer", "join_workers", "metrics_app", "process_sources", "serve_metrics"]

PATH = "/metrics"
NEED = "metrics need prometheus-client: pip install 'penstock[prometheus]'"


def process_sources() -> Sources:
    """Where this process's metrics come from, for exporters of your own: each loop and gate at each reading."""
    return Sources(tasks=_tasks, lanes=_lanes, sites=_sites, gates=_gates, sheds=all_sheds, disconnects=_disconnects)


def _tasks() -> list[TaskStatistics]:
    return [observer.statistics() for observer in observers()]


def _lanes() -> dict[str, list[LaneStatistics]]:
    found: dict[str, list[LaneStatistics]] = {}
    for loop, lanes in lane_sets():
        found.setdefault(_name_of(loop), []).extend(lanes.statistics().values())
    return found


def _sites() -> dict[str, list[SiteStatistics]]:
    found: dict[str, list[SiteStatistics]] = {}
    for observer in observers():
        found.setdefault(observer.statistics().loop, []).extend(observer.sites())
    return found


def _gates() -> list[GateStatistics]:
    return [gate.statistics() for gate in gates()]


def _disconnects() -> Mapping[str, int]:
    return memory_statistics().disconnects


def _name_of(loop: asyncio.AbstractEventLoop) -> str:
    observer = observer_of(loop)
    if observer is not None:
        return observer.statistics().loop
    # nobody has named it: it is called for what it is, "asyncio" or "uvloop"
    return type(loop).__module__.partition(".")[0]


@functools.cache
def _own_registry() -> Any:
    """A registry with the process's metrics alone, made once: who shows a site in its own name is decided there."""
    try:
        from prometheus_client import CollectorRegistry
    except ImportError:
        raise ImportError(NEED) from None
    from penstock.telemetry.prometheus import Collector

    registry = CollectorRegistry(auto_describe=True)
    registry.register(Collector(process_sources()))
    return registry


class MetricsApp:
    """An ASGI application that answers GET /metrics, alone, or mounted in another one at any path.

    Prometheus's text format or OpenMetrics, by the Accept header. Without a `registry` (prometheus_client's) it gives
    this process's metrics; with one, what is registered there.
    """

    def __init__(self, registry: Any = None) -> None:
        self._registry = registry
        registry_key(registry)
        # a text of a thousand samples takes some 20 ms to write (measured): not in the loop
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="penstock-metrics")

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request, or take part in the server's start and end."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "http":
            status, headers, body = await self._answer(scope)
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
        else:  # a websocket: closed before it was accepted, which the client sees as 403
            await send({"type": "websocket.close"})

    async def _answer(self, scope: Message) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        if not _is_ours(scope):
            return _text(404, f"metrics are at {PATH}\n")
        if scope["method"] not in {"GET", "HEAD"}:
            return _text(405, f"{PATH} takes GET, not {scope['method']}\n", (b"allow", b"GET, HEAD"))
        registry = self._registry if self._registry is not None else _own_registry()
        if parent_link() is not None:
            registry = _OfAllWorkers(registry, registry_key(self._registry))
        from prometheus_client.exposition import choose_encoder

        encode, content_type = choose_encoder(_accepted(scope))
        body = await asyncio.get_running_loop().run_in_executor(self._writer, encode, registry)
        return 200, [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode())], body


class _OfAllWorkers:
    """A registry with the metrics of all workers; of this one alone if the parent does not answer."""

    def __init__(self, registry: Any, key: str) -> None:
        self._registry, self._key = registry, key

    def collect(self) -> Iterable[Any]:
        """Ask the parent."""
        from penstock.integrations.metrics.families import from_workers

        link = parent_link()
        try:
            answers = None if link is None else link.ask({"key": self._key})
        except OSError:
            answers = None
        found: Iterable[Any] = self._registry.collect() if answers is None else from_workers(answers)
        return found


metrics_app = MetricsApp()


def join_workers(handover: socket.socket) -> None:
    """Be one of several workers: from now on the metrics here are those of all. Called by the worker's start."""
    join_parent(handover, _plain_families)


def _plain_families(key: str) -> list[Any]:
    from penstock.integrations.metrics.families import to_plain

    registry = _own_registry() if key == OWN else registry_of(key)
    return [] if registry is None else to_plain(registry.collect())


def _is_ours(scope: Message) -> bool:
    """Whether the path is /metrics, below the root, or the root itself of an application that is mounted."""
    root, path = scope.get("root_path", "").rstrip("/"), scope["path"]
    # servers differ in whether the path still has the root in front
    below = path[len(root) :] if root and (path == root or path.startswith(root + "/")) else path
    return below.rstrip("/") == PATH or (bool(root) and below in {"", "/"})


def _accepted(scope: Message) -> str:
    return ",".join(value.decode("latin-1") for name, value in scope["headers"] if name.lower() == b"accept")


def _text(status: int, text: str, *headers: tuple[bytes, bytes]) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    body = text.encode()
    length = str(len(body)).encode()
    return status, [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", length), *headers], body


async def _live(receive: Receive, send: Send) -> None:
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
        """Where it listens."""
        port: int = self._server.server_port
        return port

    def close(self) -> None:
        """Stop answering, give the port back, and wait for the thread. May be called again."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class _WorkersServer(MetricsServer):
    """The port that the parent of this worker serves, for all workers. It stays open when one worker closes it."""

    def __init__(self, port: int) -> None:
        self._port = port

    @property
    def port(self) -> int:
        """Where the parent listens."""
        return self._port

    def close(self) -> None:
        """Do nothing: other workers are read by it, and it ends with the parent."""


def _serve_by_parent(link: MetricsLink, port: int, host: str, registry: Any) -> MetricsServer:
    answer = link.ask({"serve": [host, port, registry_key(registry)]})
    if "error" in answer:
        raise _cannot_serve(host, port, answer["errno"], answer["error"])
    return _WorkersServer(answer["port"])


def _cannot_serve(host: str, port: int, number: int | None, why: str) -> OSError:
    return OSError(number, f"cannot serve metrics on {host}:{port}: {why}")


def serve_metrics(port: int, host: str = "127.0.0.1", *, registry: Any = None) -> MetricsServer:
    """Answer on a port of its own, from a daemon thread: while the loop is blocked too. Port 0 picks a free one.

    Without a `registry` (prometheus_client's) it gives this process's metrics. In a worker of `penstock serve` the
    parent listens, once for all workers, and each sample has the label `worker`. Raises OSError, naming the address,
    when it cannot be listened on, and ImportError where prometheus-client is not installed.
    """
    try:
        from prometheus_client import start_http_server
    except ImportError:
        raise ImportError(NEED) from None
    link = parent_link()
    if link is not None:
        return _serve_by_parent(link, port, host, registry)
    try:
        server, thread = start_http_server(port, host, registry if registry is not None else _own_registry())
    except OSError as error:
        raise _cannot_serve(host, port, error.errno, error.strerror or str(error)) from None
    return MetricsServer(server, thread)
