"""uvicorn's config with penstock's loop, and with penstock's changes to the application and protocols it loads."""

from __future__ import annotations

import asyncio
import logging
import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.importer import import_from_string

import penstock
from penstock.config.choice import default_config
from penstock.integrations.admission import AdmissionMiddleware
from penstock.integrations.health.server import HealthServer, LoopHealth
from penstock.integrations.health.systemd import SystemdWatchdog
from penstock.integrations.health.workers import HealthReporter
from penstock.integrations.metrics.exporter import join_workers
from penstock.integrations.uvicorn.load_failure import report_failure
from penstock.integrations.uvicorn.process_deadline import bound_server, current_server
from penstock.integrations.uvicorn.request_timing import report_receiving
from penstock.integrations.uvicorn.shedding import complete_handshakes, shed_early, shed_unread
from penstock.logformats import json_line
from penstock.loop.transports import gather_writes
from penstock.runtime.deadline import Deadline, format_lines_by
from penstock.tasks.finding_fields import show_records

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from penstock.config import Config, PressureConfig
    from penstock.runtime.socketfile import SocketFile
    from penstock.runtime.supervisor.notify import Notifier
    from penstock.runtime.supervisor.worker.link import WorkerLink

__all__ = ["ServerConfig", "check_protocols", "checked_server_config"]

logger = logging.getLogger("uvicorn.error")
LOOP = "penstock:new_event_loop"
# uvicorn takes the loop as a factory's import string since 0.36; before, by a set-up call that installs a policy
TAKES_A_FACTORY = hasattr(uvicorn.Config, "get_loop_factory")


class ServerConfig(uvicorn.Config):
    """uvicorn's config with penstock's loop. A worker makes its own."""

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

    def __init__(self, app: Any, log_format: str = "text", **choices: Any) -> None:
        # before uvicorn sets up logging
        self.log_format = log_format
        super().__init__(app, loop=LOOP if TAKES_A_FACTORY else "none", **choices)

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
        self._apply(default_config())

    def _apply(self, config: Config) -> None:
        """Change the loaded application and protocols by penstock's config."""
        self.http_protocol_class = _gathering(self.http_protocol_class)
        if config.pressure.receive_s is not None:
            report_receiving(self)
        if config.pressure.limit is not None:
            self.loaded_app = admission = _admitted(self.loaded_app, config.pressure)
            shed_early(self, admission)
            complete_handshakes(self)
        if config.pressure.lag_high_s is not None:
            shed_unread(self)
        if config.loop.debug is not None:
            # on Python 3.11 uvicorn's own runner has turned it off since the loop was made
            asyncio.get_running_loop().set_debug(config.loop.debug)

    def configure_logging(self) -> None:
        """Set up uvicorn's logging and that of penstock's own records; uvicorn calls this in each process."""
        super().configure_logging()
        show_records(logging.getLogger("uvicorn.error").getEffectiveLevel(), self.log_format)
        if self.log_format == "json":
            format_lines_by(json_line)

    if not TAKES_A_FACTORY:

        def setup_event_loop(self) -> None:
            """Install penstock's policy: uvicorn before 0.36 chooses a loop by the policy."""
            penstock.install()


def checked_server_config(app: Any, log_format: str = "text", **choices: Any) -> ServerConfig:
    """Return the config. Raises ValueError, naming the file, for a configuration of logging that cannot be used."""
    try:
        return ServerConfig(app, log_format, **choices)
    except Exception as error:
        # uvicorn checks only its logging before it serves
        log_config = choices.get("log_config")
        if not isinstance(log_config, str):
            raise
        reason = "a folder, not a file" if os.path.isdir(log_config) else str(error)
        raise ValueError(f"--log-config {log_config}: {reason}") from error


def check_protocols(choices: dict[str, Any]) -> None:
    """Raise ValueError, naming the option, for an HTTP or WebSocket protocol that uvicorn cannot load."""
    config = import_module("uvicorn.config")
    for option, known in (("http", config.HTTP_PROTOCOLS), ("ws", config.WS_PROTOCOLS)):
        name = choices.get(option, "auto")
        if not isinstance(name, str) or name in known:
            continue
        try:
            import_from_string(name)
        except Exception as error:
            allowed = ", ".join(map(str, known))
            reason = " ".join(str(error).split())
            raise ValueError(f"--{option} {name}: allowed is {allowed}, or module:class; {reason}") from None


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


def _follow_health(config: ServerConfig) -> None:
    """Answer health checks for this process. Called in its loop, before the application is loaded."""
    if config.health is None and config.health_handover is None and config.notifier is None:
        return
    server = current_server()
    health = LoopHealth(
        asyncio.get_running_loop(),
        lambda: server is None or server.started,
        lambda: Deadline.has_begun() or (server is not None and _is_stopping(server)),
    )
    if config.health is not None:
        config.health.follow_health(health)
    if config.health_handover is not None:
        HealthReporter(config.health_handover, health).start()
    if config.notifier is not None:
        config.watchdog = SystemdWatchdog(config.notifier, health)
        config.watchdog.start()


def _is_stopping(server: uvicorn.Server) -> bool:
    """Return whether a signal has come to the server, although its drain may be delayed."""
    return server.should_exit or bool(getattr(server, "is_delaying", False))
