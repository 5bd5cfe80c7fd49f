"""Serves an ASGI application by uvicorn on penstock's loop, in this process. The config is handed on as an object."""

from __future__ import annotations

import logging
import os
import signal
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from penstock.config.choice import chosen
from penstock.integrations.health.server import HealthServer
from penstock.integrations.uvicorn.addresses import default_host, own_files, urls
from penstock.integrations.uvicorn.lifespan import FAILED_START
from penstock.integrations.uvicorn.loading import ServingConfig
from penstock.integrations.uvicorn.server import UvicornServer
from penstock.integrations.uvicorn.server_config import checked_server_config
from penstock.runtime.listening import Binding, listening
from penstock.runtime.supervisor.notify import Notifier

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Sequence
    from types import FrameType

    import uvicorn

    from penstock.config import Config, PressureConfig

__all__ = ["Binding", "serve"]

logger = logging.getLogger("uvicorn.error")


def serve(app: Any, bindings: Sequence[Binding], config: Config, *, name: str = "", **choices: Any) -> int:
    """Serve on all these addresses until a signal ends it, and return the exit code.

    `app` is an ASGI application, `name` its name in the log. `choices` go to `uvicorn.Config`. Raises OSError, naming
    the address, if it cannot listen there, and ValueError for an address that is given twice.
    """
    # uvicorn drains by itself, within drain_s: two drains of one signal would interfere
    handed_on = replace(config, signals=replace(config.signals, drain_s=None))
    with ExitStack() as stack:
        listeners = stack.enter_context(listening(bindings))
        server_config = checked_server_config(ServingConfig, app, **choices)
        server_config.drain_delay_s = config.serve.drain_delay_s
        server_config.socket_files = own_files(bindings, listeners)
        stack.enter_context(chosen(handed_on))
        stack.enter_context(_health_port(server_config, config.pressure, default_host(bindings)))
        stack.enter_context(_notifying(server_config))
        where = urls(listeners, is_tls=server_config.is_ssl)
        logger.info("penstock serves %s on %s", name or _name(app), where)
        server = UvicornServer(server_config)
        pairs = zip(bindings, listeners, strict=True)
        # clients of an inherited socket wait for the next server
        server.owned = [listener for binding, listener in pairs if not binding.is_inherited]
        try:
            return _run(server, listeners)
        except KeyboardInterrupt:
            return 128 + signal.SIGINT


@contextmanager
def _health_port(config: ServingConfig, pressure: PressureConfig, host: str) -> Iterator[None]:
    """Answer health checks on a port of their own, if the config has one, from before the start to after the drain."""
    if pressure.health_port is None:
        yield
        return
    if pressure.health_host is not None:
        host = pressure.health_host
    stuck_s, overload_unready = pressure.health_stuck_s, pressure.health_overload_unready
    with HealthServer(pressure.health_port, host, stuck_s=stuck_s, overload_unready=overload_unready) as config.health:
        port = Binding(config.health.host, config.health.port)
        logger.info("penstock answers health checks on http://%s/livez and /readyz", port)
        yield


@contextmanager
def _notifying(config: ServingConfig) -> Iterator[None]:
    """Report the state of this process to systemd, if systemd asks for it."""
    config.notifier = notifier = Notifier.from_environ(os.environ)
    try:
        yield
    finally:
        if config.watchdog is not None:
            config.watchdog.close()
        notifier.close()


def _run(server: UvicornServer, listeners: list[socket.socket]) -> int:
    signal.signal(signal.SIGTERM, partial(_on_sigterm, server))
    server.run(sockets=listeners)
    if server.should_exit and signal.SIGTERM in server._captured_signals:
        return 128 + signal.SIGTERM
    return 0 if server.started else FAILED_START


def _on_sigterm(server: uvicorn.Server, signum: int, frame: FrameType | None) -> None:
    # After the drain uvicorn raises the signal again, for the handler that was there before. The process must end by
    # its exit code, not by the signal's default action, so that the Unix socket's file is removed. An exception in a
    # task would be logged.
    if not server.should_exit:
        raise SystemExit(128 + signum)


def _name(app: Any) -> str:
    return app if isinstance(app, str) else getattr(app, "__qualname__", type(app).__qualname__)
