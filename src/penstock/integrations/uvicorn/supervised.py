"""Serves an ASGI application by worker processes: the parent's side, with its ports and the supervisor."""

from __future__ import annotations

import gc
import logging
import os
import sys
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from penstock.integrations.metrics.hub import MetricsHub
from penstock.integrations.metrics.supervisor import supervisor_families
from penstock.integrations.uvicorn.addresses import default_host, urls
from penstock.integrations.uvicorn.server_config import ServerConfig, checked_server_config
from penstock.integrations.uvicorn.watching import SourceWatch
from penstock.integrations.uvicorn.worker import PRELOAD, TARGET, WorkerPayload
from penstock.runtime.listening import Binding, listening
from penstock.runtime.supervisor.commands import Commands
from penstock.runtime.supervisor.control import ControlServer, listen_control
from penstock.runtime.supervisor.fleet import FleetOptions
from penstock.runtime.supervisor.recycling import RecycleBounds
from penstock.runtime.supervisor.supervisor import Supervisor, SupervisorOptions
from penstock.runtime.supervisor.upgrade import Successor
from penstock.runtime.supervisor.worker.orders import Orders

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from penstock.config import Config
    from penstock.integrations.health.workers import WorkersHealth
    from penstock.runtime.supervisor.notify import Notifier
    from penstock.runtime.supervisor.upgrade import TakenOver

__all__ = ["Settings", "WorkerService"]

logger = logging.getLogger("uvicorn.error")
# options of uvicorn's reloader, which the parent runs
# the supervisor's thread makes a call within a moment
CALL_S = 5.0
RELOAD_CHOICES = ("reload", "reload_dirs", "reload_includes", "reload_excludes", "reload_delay")


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one generation of workers, as they are read.

    `app` is the application's import string. `choices` go to `uvicorn.Config`; those of its reloader stay in the
    parent. `environ` are the variables of the workers, without the config's.
    """

    app: str
    config: Config
    choices: dict[str, Any]
    environ: dict[str, str]
    log_format: str = "text"

    def server_config(self) -> ServerConfig:
        """Return uvicorn's config for the parent: it sets up logging, and finds the folders to watch."""
        return checked_server_config(ServerConfig, self.app, self.log_format, **self.choices)

    def orders(self, handovers: tuple[str, ...]) -> Orders:
        """Return the orders of the workers. Raises ConfigError for a config that has no text."""
        # the supervisor drains the workers: two drains of one signal would interfere
        config = replace(self.config, signals=replace(self.config.signals, drain_s=None))
        preload = self.config.workers.preload
        choices = {name: value for name, value in self.choices.items() if name not in RELOAD_CHOICES}
        payload = WorkerPayload(self.app, choices | {"workers": 1}, self.log_format, handovers, preload == "app")
        variables = config.exported(self.environ)
        return Orders(TARGET, payload, variables, tuple(sys.path), None if preload == "none" else PRELOAD)


class WorkerService:
    """A service of worker processes. `read()` reads the settings again, for a reload; `first` are those read already.

    `count` is the number of workers at first, `most` the most that there may be. `environ` are the variables of the
    command itself, for a new program that takes its place.
    """

    def __init__(
        self,
        read: Callable[[], Settings],
        first: Settings,
        count: int,
        most: int,
        notifier: Notifier,
        environ: Mapping[str, str],
        taken: TakenOver | None = None,
    ) -> None:
        self._read, self._first, self._notifier = read, first, notifier
        self._count, self._most = count, most
        self._environ, self._taken = environ, taken
        self._is_read = False
        self._supervisor: Supervisor | None = None
        self._health: WorkersHealth | None = None
        self._hub = MetricsHub(self._own_families)

    def run(self, bindings: Sequence[Binding]) -> int:
        """Serve on all these addresses until a signal ends it, and return the exit code.

        Raises OSError, naming the address, if it cannot listen there, ValueError for an address that is given twice,
        and ConfigError for a config whose values have no text, such as a callable.
        """
        taken = [] if self._taken is None else self._taken.sockets
        with ExitStack() as stack:
            listeners = stack.enter_context(listening(bindings, taken, self._leaves_listeners))
            parent = self._first.server_config()
            self._open_health_port(stack, default_host(bindings), taken[len(bindings) :])
            self._hub.start()
            stack.callback(self._hub.close)
            self._supervisor = supervisor = self._make_supervisor(parent, bindings, listeners)
            if parent.should_reload:
                stack.enter_context(SourceWatch(parent, lambda: supervisor.call(supervisor.reload)))
            stack.callback(_control(supervisor))
            where = urls(listeners, is_tls=parent.is_ssl)
            workers = f"{self._count} worker{'s' * (self._count != 1)}"
            logger.info("penstock serves %s on %s by %s, supervisor %d", self._first.app, where, workers, os.getpid())
            return supervisor.run()

    def _open_health_port(self, stack: ExitStack, host: str, taken: Sequence[socket.socket]) -> None:
        pressure = self._first.config.pressure
        if pressure.health_port is None:
            return
        # imported here: they import the loop
        from penstock.integrations.health.port import listen
        from penstock.integrations.health.server import HealthEndpoints
        from penstock.integrations.health.workers import WorkersHealth

        endpoints = HealthEndpoints(pressure.health_stuck_s, pressure.health_overload_unready)
        health_host = host if pressure.health_host is None else pressure.health_host
        listener = taken[0] if taken else listen(health_host, pressure.health_port)
        self._health = WorkersHealth(listener, endpoints, self._is_ending)
        if not taken:
            self._health.start()
        stack.callback(self._health.close)
        port = Binding(self._health.host, self._health.port)
        logger.info("penstock answers health checks on http://%s/livez and /readyz", port)

    @property
    def _handovers(self) -> dict[str, socket.socket]:
        """The hand-over sockets that each worker inherits, by their names."""
        health = {} if self._health is None else {"health": self._health.handover}
        return {**health, "metrics": self._hub.handover}

    def _make_supervisor(
        self, parent: ServerConfig, bindings: Sequence[Binding], listeners: Sequence[socket.socket]
    ) -> Supervisor:
        config = self._first.config
        options = SupervisorOptions(self._count, self._most, _fleet_options(config, parent), config.serve.drain_delay_s)
        return Supervisor(
            options,
            self._orders,
            listeners,
            logger=logger,
            kept=[sock for sock, binding in zip(listeners, bindings, strict=True) if binding.is_inherited],
            inherited=[sock.fileno() for sock in self._handovers.values()],
            title=self._first.app,
            notifier=self._notifier,
            is_taking_over=self._taken is not None,
            successor=lambda: self._start_successor(listeners),
            on_ready=self._tell_ready,
        )

    def _orders(self) -> Orders:
        settings = self._read() if self._is_read else self._first
        self._is_read = True
        # A parser of the command line is a circle of some 300 KiB. Left to a later collection, those of many reloads
        # spread over the heap, which grows by 2 MiB.
        gc.collect()
        return settings.orders(tuple(self._handovers))

    def _own_families(self) -> Iterator[list[Any]]:
        supervisor = self._supervisor
        return (
            iter(()) if supervisor is None else supervisor_families(supervisor.call(supervisor.snapshot).result(CALL_S))
        )

    # --- the end, and a program that takes this one's place

    def _is_ending(self) -> bool:
        return self._supervisor is not None and self._supervisor.is_ending

    def _leaves_listeners(self) -> bool:
        return self._taken is not None if self._supervisor is None else self._supervisor.leaves_listeners

    def _start_successor(self, listeners: Sequence[socket.socket]) -> Successor:
        # the workers of the new program ask its parent for the same ports
        self._hub.close_ports()
        sockets = [*listeners, *([] if self._health is None else [self._health.listener])]
        environ = {**self._environ, **self._notifier.handover()}
        try:
            return Successor(sockets, environ, failed=self._hub.open_ports, served=self._leave_health_port)
        except OSError:
            self._hub.open_ports()
            raise

    def _leave_health_port(self) -> None:
        # checks that came here would be told of this program's drain
        if self._health is not None:
            self._health.stop_answering()

    def _tell_ready(self) -> None:
        if self._taken is None:
            return
        # until now the old program has answered health checks
        if self._health is not None:
            self._health.start()
        self._taken.tell_ready()


def _control(supervisor: Supervisor) -> Callable[[], None]:
    """Open the control socket, and return the function that closes it. Without one the service serves all the same."""
    try:
        return ControlServer(Commands(supervisor), listen_control(os.getpid())).close
    except OSError as error:
        logger.warning("there is no control socket: %s", error)
        return lambda: None


def _fleet_options(config: Config, parent: ServerConfig) -> FleetOptions:
    bounds = config.workers
    return FleetOptions(
        config.signals.drain_s,
        bounds.start_s,
        bounds.hang_s,
        bounds.max_restarts,
        RecycleBounds(bounds.max_requests, bounds.max_requests_jitter, bounds.max_age_s, bounds.max_rss_bytes),
        waits_for_change=parent.should_reload,
    )
