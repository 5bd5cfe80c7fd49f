"""uvicorn's config of a process that serves, with penstock's changes to the application and protocols it loads.

What the config asks for is imported only then: it is a good part of an idle worker's memory.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from penstock.config.choice import default_config
from penstock.integrations.metrics.exporter import join_workers
from penstock.integrations.uvicorn.load_failure import report_failure
from penstock.integrations.uvicorn.process_deadline import bound_server, current_server
from penstock.integrations.uvicorn.server_config import ServerConfig
from penstock.loop.transports import gather_writes
from penstock.runtime.deadline import Deadline

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    import uvicorn

    from penstock.config import Config, PressureConfig
    from penstock.integrations.admission import AdmissionMiddleware
    from penstock.integrations.health.server import HealthServer
    from penstock.integrations.health.systemd import SystemdWatchdog
    from penstock.runtime.socketfile import SocketFile
    from penstock.runtime.supervisor.notify import Notifier
    from penstock.runtime.supervisor.worker.link import WorkerLink

__all__ = ["ServingConfig"]


class ServingConfig(ServerConfig):
    """The config of a process that serves. A worker makes its own."""

    # the files of Unix sockets, which the serving process removes if its end is forced
    socket_files: tuple[SocketFile, ...] = ()
    # from the first signal of a process that serves alone to its drain, in seconds
    drain_delay_s: float = 0.0
    # the health port of this process, or a worker's way to that of its parent
    health: HealthServer | None = None
    health_handover: socket.socket | None = None
    # the way to systemd of a process that serves alone
    notifier: Notifier | None = None
    watchdog: SystemdWatchdog | None = None
    # a worker's way to the metrics of its parent
    metrics_handover: socket.socket | None = None
    # a worker's link to its supervisor
    link: WorkerLink | None = None

    def load(self) -> None:
        """Load the application; uvicorn calls this in the running loop. SystemExit(3) if it cannot, in a worker."""
        _follow_health(self)
        if self.metrics_handover is not None:
            join_workers(self.metrics_handover)
        if self.link is None:
            super().load()
            bound_server(self.timeout_graceful_shutdown, self.socket_files, self.drain_delay_s)
        else:
            # the supervisor bounds the end of its workers
            self.link.health.follow(asyncio.get_running_loop())
            _load_in_worker(super().load, self.link, str(self.app))
        _apply(self, default_config())


def _apply(server: ServingConfig, config: Config) -> None:
    """Change the loaded application and protocols by penstock's config."""
    server.http_protocol_class = _gathering(server.http_protocol_class)
    if config.pressure.receive_s is not None:
        from penstock.integrations.uvicorn.request_timing import report_receiving

        report_receiving(server)
    if config.pressure.limit is not None:
        from penstock.integrations.uvicorn.shedding import complete_handshakes, shed_early

        server.loaded_app = admission = _admitted(server.loaded_app, config.pressure)
        shed_early(server, admission)
        complete_handshakes(server)
    if config.pressure.lag_high_s is not None:
        from penstock.integrations.uvicorn.shedding import shed_unread

        shed_unread(server)
    if config.loop.debug is not None:
        # on Python 3.11 uvicorn's own runner has turned it off since the loop was made
        asyncio.get_running_loop().set_debug(config.loop.debug)


def _load_in_worker(load: Callable[[], None], link: WorkerLink, app: str) -> None:
    """Load the application. An error becomes one line for the supervisor: every worker would fail in the same way."""
    try:
        load()
    except (Exception, SystemExit) as error:
        raise SystemExit(report_failure(link, app, error)) from error


def _gathering(protocol: Any) -> Any:
    class Gathering(protocol):  # type: ignore[misc]
        """uvicorn's protocol with gathered writes: one system call sends a response's header and its body."""

        def connection_made(self, transport: Any) -> None:
            gather_writes(transport)
            super().connection_made(transport)

    return Gathering


def _admitted(app: Any, pressure: PressureConfig) -> AdmissionMiddleware:
    """Return the application behind a gate, outside uvicorn's own middleware."""
    from penstock.integrations.admission import AdmissionMiddleware

    return AdmissionMiddleware(
        app,
        limit=pressure.limit,
        initial=pressure.initial,
        max_wait_s=pressure.max_wait_s,
        deadline_s=pressure.deadline_s,
        health=pressure.health_paths,
        exempt=pressure.exempt_paths,
        max_streams=pressure.max_streams,
        stream_after_s=pressure.stream_after_s,
    )


def _follow_health(config: ServingConfig) -> None:
    """Answer health checks for this process. Called in its loop, before the application is loaded."""
    if config.health is None and config.health_handover is None and config.notifier is None:
        return
    from penstock.integrations.health.server import LoopHealth

    server = current_server()
    health = LoopHealth(
        asyncio.get_running_loop(),
        lambda: server is None or server.started,
        lambda: Deadline.has_begun() or (server is not None and _is_stopping(server)),
    )
    if config.health is not None:
        config.health.follow_health(health)
    if config.health_handover is not None:
        from penstock.integrations.health.workers import HealthReporter

        HealthReporter(config.health_handover, health).start()
    if config.notifier is not None:
        from penstock.integrations.health.systemd import SystemdWatchdog

        config.watchdog = SystemdWatchdog(config.notifier, health)
        config.watchdog.start()


def _is_stopping(server: uvicorn.Server) -> bool:
    """Return whether a signal has come to the server, although its drain may be delayed."""
    return server.should_exit or bool(getattr(server, "is_delaying", False))
