"""Serves an ASGI application by uvicorn on penstock's loop, in this process or in uvicorn's own worker processes.

One process gets the config as an object. Workers and the reloader's child are fresh processes: the config reaches them
by PENSTOCK_* variables, the loop by its import string.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
from contextlib import ExitStack, contextmanager
from dataclasses import fields, replace
from functools import partial
from inspect import signature
from typing import TYPE_CHECKING, Any

from uvicorn.supervisors import Multiprocess

from penstock.config import Config
from penstock.config.choice import chosen
from penstock.integrations.health.server import HealthEndpoints, HealthServer
from penstock.integrations.health.workers import WorkersHealth
from penstock.integrations.metrics.hub import MetricsHub
from penstock.integrations.uvicorn.lifespan import FAILED_START
from penstock.integrations.uvicorn.process_deadline import bound_supervisor
from penstock.integrations.uvicorn.server import UvicornServer
from penstock.integrations.uvicorn.server_config import ServerConfig
from penstock.integrations.uvicorn.tls import Tls
from penstock.integrations.uvicorn.workers import Reloader, WorkerSupervisor
from penstock.runtime.deadline import Deadline
from penstock.runtime.listening import DEFAULT_HOST, Binding, listening
from penstock.runtime.socketfile import SocketFile
from penstock.runtime.supervisor.notify import Notifier

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping, Sequence
    from types import FrameType

    import uvicorn

    from penstock.config import PressureConfig

__all__ = ["Binding", "Tls", "export", "serve"]

logger = logging.getLogger("uvicorn.error")


def serve(
    app: Any, bindings: Sequence[Binding], config: Config, tls: Tls | None = None, *, name: str = "", **choices: Any
) -> int:
    """Serve on all these addresses until a signal ends it, and return the exit code.

    `app` is an ASGI application, or its import string if `workers` or `reload` asks for several processes. `name` is
    the application's name in the log. `choices` go to `uvicorn.Config`. Raises OSError, naming the address, if it
    cannot listen there, ValueError for an address that is given twice, and ConfigError for a config whose values have
    no text, such as a callable, with several processes.
    """
    with ExitStack() as stack:
        listeners = stack.enter_context(listening(bindings))
        server_config = _server_config(
            app,
            backlog=config.pressure.backlog,
            timeout_graceful_shutdown=config.signals.drain_s,
            **_tls_choices(tls),
            **choices,
        )
        server_config.inherited = tuple(binding.is_inherited for binding in bindings)
        if server_config.is_single:
            server_config.drain_delay_s = config.serve.drain_delay_s
        server_config.socket_files = _own_files(bindings, listeners)
        stack.enter_context(_handing_on(config, server_config))
        stack.enter_context(_health_port(server_config, config.pressure, _host(bindings)))
        stack.enter_context(_metrics_hub(server_config))
        stack.enter_context(_notifying(server_config, os.environ))
        urls = ", ".join(_url(listener, tls) for listener in listeners)
        logger.info("penstock serves %s on %s%s", name or _name(app), urls, _processes(server_config))
        return _supervise(server_config, listeners)


def _server_config(app: Any, **choices: Any) -> ServerConfig:
    try:
        return ServerConfig(app, **choices)
    except Exception as error:
        # uvicorn checks only its logging before it serves
        log_config = choices.get("log_config")
        if not isinstance(log_config, str):
            raise
        reason = "a folder, not a file" if os.path.isdir(log_config) else str(error)
        raise ValueError(f"--log-config {log_config}: {reason}") from error


@contextmanager
def _handing_on(config: Config, server_config: ServerConfig) -> Iterator[None]:
    """Hand the config on: as an object within one process, by the environment to child processes."""
    # uvicorn drains by itself, within drain_s: two drains of one signal would interfere
    handed_on = replace(config, signals=replace(config.signals, drain_s=None))
    if server_config.is_single:
        with chosen(handed_on):
            yield
    else:
        export(handed_on, os.environ)
        yield


def export(config: Config, environ: MutableMapping[str, str]) -> None:
    """Set the environment to exactly this config, for child processes: variables set before have been read.

    Raises ConfigError for a value that has no text, such as a callable.
    """
    variables = config.to_env()
    groups = tuple(f"PENSTOCK_{field.name.upper()}_" for field in fields(Config))
    for name in [name for name in environ if name.startswith(groups) or name == "PENSTOCK_CONFIG"]:
        del environ[name]
    environ.update(variables)


@contextmanager
def _health_port(config: ServerConfig, pressure: PressureConfig, default_host: str) -> Iterator[None]:
    """Answer health checks on a port of their own, if the config has one, from before the start to after the drain."""
    if pressure.health_port is None:
        yield
        return
    host = default_host if pressure.health_host is None else pressure.health_host
    port = _make_health_port(config, pressure, pressure.health_port, host)
    port.start()
    logger.info("penstock answers health checks on http://%s/livez and /readyz", Binding(port.host, port.port))
    try:
        yield
    finally:
        port.close()


def _make_health_port(
    config: ServerConfig, pressure: PressureConfig, number: int, host: str
) -> HealthServer | WorkersHealth:
    stuck_s, overload_unready = pressure.health_stuck_s, pressure.health_overload_unready
    if config.is_single:
        config.health = HealthServer(number, host, stuck_s=stuck_s, overload_unready=overload_unready)
        return config.health
    workers = WorkersHealth(number, host, HealthEndpoints(stuck_s, overload_unready))
    config.health_handover = workers.handover
    return workers


@contextmanager
def _metrics_hub(config: ServerConfig) -> Iterator[None]:
    """Collect the metrics of all workers here, if there are several processes."""
    if config.is_single:
        yield
        return
    hub = MetricsHub()
    config.metrics_handover = hub.handover
    hub.start()
    try:
        yield
    finally:
        hub.close()


@contextmanager
def _notifying(config: ServerConfig, environ: MutableMapping[str, str]) -> Iterator[None]:
    """Report the state of this process to systemd, if it serves alone and systemd asks for it."""
    if not config.is_single:
        yield
        return
    config.notifier = notifier = Notifier.from_environ(environ)
    try:
        yield
    finally:
        if config.watchdog is not None:
            config.watchdog.close()
        notifier.close()


def _supervise(config: ServerConfig, listeners: list[socket.socket]) -> int:
    """Serve in this process, or supervise those that do, and return the exit code."""
    server = UvicornServer(config)
    if config.is_single:
        server.owned = config.owned(listeners)
    try:
        if config.is_single:
            return _run_server(server, listeners)
        bound_supervisor(config.timeout_graceful_shutdown, config.socket_files)
        if config.should_reload:
            Reloader(config, target=server.run, sockets=listeners).run()
        elif _run_workers(config, server, listeners).has_failed():
            return FAILED_START
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    ended_by = Deadline.get().signum
    return 0 if ended_by is None else 128 + ended_by


def _run_server(server: UvicornServer, listeners: list[socket.socket]) -> int:
    signal.signal(signal.SIGTERM, partial(_on_sigterm, server))
    server.run(sockets=listeners)
    if server.should_exit and signal.SIGTERM in server._captured_signals:
        return 128 + signal.SIGTERM
    return 0 if server.started else FAILED_START


def _run_workers(config: ServerConfig, server: UvicornServer, listeners: list[socket.socket]) -> WorkerSupervisor:
    # in newer uvicorns workers make their own servers; older ones need a target
    target = {"target": server.run} if "target" in signature(Multiprocess).parameters else {}
    workers = WorkerSupervisor(config, sockets=listeners, **target)
    workers.run()
    return workers


def _on_sigterm(server: uvicorn.Server, signum: int, frame: FrameType | None) -> None:
    # After the drain uvicorn raises the signal again, for the handler that was there before. The process must end by
    # its exit code, not by the signal's default action, so that the Unix socket's file is removed. An exception in a
    # task would be logged.
    if not server.should_exit:
        raise SystemExit(128 + signum)


def _name(app: Any) -> str:
    return app if isinstance(app, str) else getattr(app, "__qualname__", type(app).__qualname__)


def _own_files(bindings: Sequence[Binding], listeners: Sequence[socket.socket]) -> tuple[SocketFile, ...]:
    own = (listener for binding, listener in zip(bindings, listeners, strict=True) if not binding.is_inherited)
    return tuple(file for file in map(SocketFile.of, own) if file is not None)


def _host(bindings: Sequence[Binding]) -> str:
    """Return the host of the first TCP address; this machine's own without one."""
    return next((each.host for each in bindings if each.fd is None and each.uds is None), DEFAULT_HOST)


def _processes(config: ServerConfig) -> str:
    return f" by {config.workers} workers" if config.workers > 1 else ""


def _url(listener: socket.socket, tls: Tls | None) -> str:
    if listener.family == socket.AF_UNIX:
        return f"unix:{listener.getsockname()}"
    host, port = listener.getsockname()[:2]
    scheme = "https" if tls else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def _tls_choices(tls: Tls | None) -> dict[str, Any]:
    if tls is None:
        return {}
    tls.check()
    return {"ssl_certfile": tls.certfile, "ssl_keyfile": tls.keyfile, "ssl_keyfile_password": tls.password}
