"""A worker process of `penstock serve`: uvicorn's server, whose supervisor says when it ends.

The functions here are the program that the supervisor's orders name. They run in the worker's process, or in the one
that workers are forked from, and import the server there: the supervisor's process has this module without a loop.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from uvicorn.config import HTTP_PROTOCOLS, WS_PROTOCOLS
from uvicorn.importer import import_from_string

from penstock.integrations.asgi import load_app
from penstock.integrations.metrics.reporter import send_last_report
from penstock.integrations.uvicorn.lifespan import FAILED_START
from penstock.integrations.uvicorn.load_failure import failed_preload, report_failure
from penstock.integrations.uvicorn.server_config import ServerConfig
from penstock.runtime.socketfile import SocketFile

if TYPE_CHECKING:
    from penstock.runtime.supervisor.worker.link import WorkerLink

__all__ = ["PRELOAD", "TARGET", "WorkerPayload", "preload", "serve_worker"]

TARGET, PRELOAD = f"{__name__}:serve_worker", f"{__name__}:preload"
# what workers import when they serve; forked ones share it
SERVER = (
    "penstock.integrations.admission",
    "penstock.integrations.health.server",
    "penstock.integrations.health.workers",
    "penstock.integrations.uvicorn.loading",
    "penstock.integrations.uvicorn.server",
    "penstock.integrations.uvicorn.shedding",
)


@dataclass(frozen=True, slots=True)
class WorkerPayload:
    """The settings of a worker. `app` is the application's import string, `choices` go to `uvicorn.Config`.

    `handovers` names the hand-over sockets among the worker's further descriptors, in their order.
    """

    app: str
    choices: dict[str, Any]
    log_format: str = "text"
    handovers: tuple[str, ...] = ()
    preloads_app: bool = False

    @property
    def is_factory(self) -> bool:
        """Whether the import string names a function that makes the application."""
        return bool(self.choices.get("factory"))

    @property
    def is_wsgi(self) -> bool:
        """Whether the application is a WSGI one."""
        return bool(self.choices.get("interface") == "wsgi")


def preload(payload: WorkerPayload) -> None:
    """Import the server with its protocols, and the application too if the settings say so.

    Raises PreloadError for an application that cannot be loaded.
    """
    config = ServerConfig(payload.app, payload.log_format, **payload.choices)
    for known, name in ((HTTP_PROTOCOLS, config.http), (WS_PROTOCOLS, config.ws)):
        if isinstance(name, str) and known.get(name, name):
            import_from_string(known.get(name, name))
    for module in SERVER:
        import_module(module)
    if payload.preloads_app:
        try:
            load_app(payload.app, factory=payload.is_factory, wsgi=payload.is_wsgi)
        except BaseException as error:
            raise failed_preload(payload.app, error) from error


def serve_worker(link: WorkerLink, payload: WorkerPayload) -> int:
    """Serve the application on the link's listeners until the supervisor ends it. Return the exit code."""
    from penstock.integrations.uvicorn.loading import ServingConfig
    from penstock.integrations.uvicorn.server import UvicornServer
    from penstock.runtime.attach.role import ProcessRole
    from penstock.runtime.attach.service import attach_service

    config = ServingConfig(payload.app, payload.log_format, **payload.choices)
    config.link = link
    attach_service.role = ProcessRole(f"serve {payload.app}", link.orders.parent_pid, link.number)
    with suppress(OSError):
        config.socket_files = tuple(file for file in map(SocketFile.of, link.owned) if file is not None)
    for name, number in zip(payload.handovers, link.inherited, strict=True):
        setattr(config, f"{name}_handover", socket.socket(fileno=number))
    try:
        load_app(payload.app, factory=payload.is_factory, wsgi=payload.is_wsgi)
    except BaseException as error:
        return report_failure(link, payload.app, error)
    server = UvicornServer(config)
    try:
        server.run(sockets=link.listeners)
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else FAILED_START
    send_last_report()
    return 0 if server.started or link.is_drained else FAILED_START
