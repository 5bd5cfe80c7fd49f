"""Serves an ASGI application by uvicorn on penstock's loop, in this process or in uvicorn's own worker processes.

The socket is bound here, before uvicorn starts, so that a port in use is one clear error. Workers and the reloader are
fresh processes: the config reaches them through PENSTOCK_* variables, the loop through its import string.
"""

import asyncio
import errno
import logging
import multiprocessing
import os
import signal
import socket
import stat
import threading
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, fields, replace
from functools import partial
from inspect import signature
from traceback import extract_tb
from types import FrameType, TracebackType
from typing import Any, NoReturn

import uvicorn
from uvicorn.supervisors import Multiprocess

import penstock
from penstock.config import Config, PressureConfig
from penstock.integrations.admission import AdmissionMiddleware
from penstock.integrations.health.server import HealthEndpoints, HealthServer, LoopHealth
from penstock.integrations.health.workers import HealthReporter, WorkersHealth
from penstock.integrations.metrics.exporter import join_workers
from penstock.integrations.metrics.hub import MetricsHub
from penstock.integrations.uvicorn.lifespan import FAILED_START
from penstock.integrations.uvicorn.request_timing import report_receiving
from penstock.integrations.uvicorn.server import FAILED, Server, report
from penstock.integrations.uvicorn.shedding import complete_handshakes, shed_early, shed_unread
from penstock.integrations.uvicorn.tls import Tls
from penstock.integrations.uvicorn.workers import Reloader, Workers
from penstock.logformats import json_line
from penstock.loop.transports import gather_writes
from penstock.runtime.deadline import Deadline, DeadlineOptions, format_lines_by
from penstock.tasks.finding_fields import show_records

__all__ = ["Binding", "Tls", "export", "serve"]

logger = logging.getLogger("uvicorn.error")
ENDS = (signal.SIGTERM, signal.SIGINT)
LOOP = "penstock:new_event_loop"
# uvicorn takes the loop as a factory's import string since 0.36; before, by a set-up call that installs a policy.
TAKES_A_FACTORY = hasattr(uvicorn.Config, "get_loop_factory")


@dataclass(frozen=True, slots=True)
class Binding:
    """Where to listen: an open socket `fd`, else a Unix socket's path `uds`, else host and port; port 0 picks one."""

    host: str = "127.0.0.1"
    port: int = 8000
    uds: str | None = None
    # an open socket that the process has inherited, as systemd's socket activation leaves it
    fd: int | None = None

    def __str__(self) -> str:
        if self.fd is not None:
            return f"file descriptor {self.fd}"
        if self.uds is not None:
            return self.uds
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class ServerConfig(uvicorn.Config):
    """uvicorn's config with penstock's loop; pickled to the worker processes as it is."""

    # the Unix socket's file, which the serving process removes if its end is forced
    uds_file: str | None = None
    # the health port of this process, or how a worker reaches that of its parent
    health: HealthServer | None = None
    health_handover: socket.socket | None = None
    # how a worker reaches the metrics of its parent
    metrics_handover: socket.socket | None = None
    # where a worker tells its parent how its start went
    start_reports: socket.socket | None = None

    def __init__(self, app: Any, log_format: str = "text", **choices: Any) -> None:
        # before uvicorn sets up logging
        self.log_format = log_format
        super().__init__(app, loop=LOOP if TAKES_A_FACTORY else "none", **choices)

    def load(self) -> None:
        """Load the application; uvicorn calls this in the running loop. SystemExit(3) if it cannot, in a worker."""
        _follow_health(self)
        if self.metrics_handover is not None:
            join_workers(self.metrics_handover)
        if multiprocessing.parent_process() is None:
            super().load()
        else:
            _load_in_worker(super().load, self)
        _watch_server(self)
        self.http_protocol_class = _gathering(self.http_protocol_class)
        config = Config.load()
        if config.pressure.receive_s is not None:
            report_receiving(self)
        if config.pressure.limit is not None:
            self.loaded_app = admission = _admitted(self.loaded_app, config.pressure)
            shed_early(self, admission)
            complete_handshakes(self)
        if config.pressure.lag_high_s is not None:
            shed_unread(self)
        if config.loop.debug is not None:
            # On Python 3.11 uvicorn's own runner has turned it off since the loop was made.
            asyncio.get_running_loop().set_debug(config.loop.debug)

    def configure_logging(self) -> None:
        """Set up uvicorn's logging, and show penstock's own records beside it; uvicorn calls this in each process."""
        super().configure_logging()
        show_records(logging.getLogger("uvicorn.error").getEffectiveLevel(), self.log_format)
        if self.log_format == "json":
            format_lines_by(json_line)

    if not TAKES_A_FACTORY:

        def setup_event_loop(self) -> None:
            """Install penstock's policy: how uvicorn before 0.36 chooses a loop."""
            penstock.install()


def _load_in_worker(load: Callable[[], None], config: ServerConfig) -> None:
    """Load the application. An error is one line: every worker has it, and none is worth another try."""
    try:
        load()
    except Exception as error:
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"
        _fail(config, f"cannot load {config.app}: {text} ({_place(error.__traceback__)})", error)
    except SystemExit as error:
        # uvicorn's own end has its line already
        if error.code != FAILED_START:
            _fail(config, f"cannot load {config.app}: it ends the process by SystemExit({error.code!r})", error)
        raise


def _fail(config: ServerConfig, reason: str, error: BaseException) -> NoReturn:
    """End this process before it has served: the parent logs the reason once, without a parent the reloader's child."""
    if not report(config, FAILED, reason):
        logger.error(reason, exc_info=error)
    raise SystemExit(FAILED_START) from error


def _place(traceback: TracebackType | None) -> str:
    """The innermost line of a traceback."""
    frame = extract_tb(traceback)[-1]
    return f"{frame.filename}:{frame.lineno} in {frame.name}"


def _gathering(protocol: Any) -> Any:
    class Gathering(protocol):  # type: ignore[misc]
        """uvicorn's protocol, which writes an answer's header and its body: one system call sends both."""

        def connection_made(self, transport: Any) -> None:
            gather_writes(transport)
            super().connection_made(transport)

    return Gathering


def _admitted(app: Any, pressure: PressureConfig) -> AdmissionMiddleware:
    """The application behind a gate, outside everything else that uvicorn has put around it."""
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


def serve(app: Any, binding: Binding, config: Config, tls: Tls | None = None, *, name: str = "", **choices: Any) -> int:
    """Serve until a signal ends it; returns the exit code.

    `app` is an ASGI application, or its import string where `workers` or `reload` asks for several processes; `name` is
    what the log calls it; `choices` go to `uvicorn.Config`. Raises OSError, naming the address, when it cannot be
    listened on.
    """
    # uvicorn drains by itself, within drain_s: two drains of one signal would get in each other's way.
    export(replace(config, signals=replace(config.signals, drain_s=None)), os.environ)
    with ExitStack() as stack:
        listener = stack.enter_context(listening(binding))
        server_config = _server_config(
            app,
            host=binding.host,
            port=binding.port,
            fd=binding.fd,
            backlog=config.pressure.backlog,
            timeout_graceful_shutdown=config.signals.drain_s,
            **_tls_choices(tls),
            **choices,
        )
        server_config.uds_file = binding.uds
        stack.enter_context(_health_port(server_config, config.pressure, binding))
        stack.enter_context(_metrics_hub(server_config))
        logger.info("penstock serves %s on %s", name or _name(app), _url(listener, tls))
        return _supervise(server_config, listener)


def _server_config(app: Any, **choices: Any) -> ServerConfig:
    try:
        return ServerConfig(app, **choices)
    except Exception as error:
        # of all that it takes, uvicorn looks at its logging alone before it serves
        log_config = choices.get("log_config")
        if not isinstance(log_config, str):
            raise
        raise ValueError(f"--log-config {log_config}: {error}") from error


def export(config: Config, environ: MutableMapping[str, str]) -> None:
    """Leave exactly this config in the environment, for the child processes: what stood there has been read."""
    groups = tuple(f"PENSTOCK_{field.name.upper()}_" for field in fields(Config))
    for name in [name for name in environ if name.startswith(groups) or name == "PENSTOCK_CONFIG"]:
        del environ[name]
    environ.update(config.to_env())


@contextmanager
def _health_port(config: ServerConfig, pressure: PressureConfig, binding: Binding) -> Iterator[None]:
    """Answer health checks on a port of their own, if the config has one, from before the start to after the drain."""
    if pressure.health_port is None:
        yield
        return
    host = binding.host if pressure.health_host is None else pressure.health_host
    port: HealthServer | WorkersHealth
    if config.should_reload or config.workers > 1:
        endpoints = HealthEndpoints(pressure.health_stuck_s, pressure.health_overload_unready)
        port = workers = WorkersHealth(pressure.health_port, host, endpoints)
        config.health_handover = workers.handover
    else:
        port = config.health = HealthServer(
            pressure.health_port,
            host,
            stuck_s=pressure.health_stuck_s,
            overload_unready=pressure.health_overload_unready,
        )
    port.start()
    logger.info("penstock answers health checks on http://%s/livez and /readyz", Binding(port.host, port.port))
    try:
        yield
    finally:
        port.close()


@contextmanager
def _metrics_hub(config: ServerConfig) -> Iterator[None]:
    """Have the metrics of all workers here, where there are several processes."""
    if not config.should_reload and config.workers == 1:
        yield
        return
    hub = MetricsHub()
    config.metrics_handover = hub.handover
    hub.start()
    try:
        yield
    finally:
        hub.close()


def _follow_health(config: ServerConfig) -> None:
    """Answer health checks for this process; called in its loop, before the application is loaded."""
    if config.health is None and config.health_handover is None:
        return
    server = next(filter(None, map(_handling_server, ENDS)), None)
    health = LoopHealth(
        asyncio.get_running_loop(),
        lambda: server is None or server.started,
        lambda: Deadline.has_begun() or (server is not None and server.should_exit),
    )
    if config.health is not None:
        config.health.follow_health(health)
    if config.health_handover is not None:
        HealthReporter(config.health_handover, health).start()


def _watch_server(config: ServerConfig) -> None:
    """Have this process, in which uvicorn begins to serve, gone in time after uvicorn hears of its first signal."""
    if threading.current_thread() is not threading.main_thread() or config.timeout_graceful_shutdown is None:
        return
    loop: Any = asyncio.get_running_loop()
    # a worker's supervisor decides what a second signal means: it sends one itself to workers that have had the first
    is_alone = multiprocessing.parent_process() is None
    options = DeadlineOptions(
        config.timeout_graceful_shutdown,
        lambda signum: _handling_server(signum) is not None,
        waited=_waited,
        relay=loop.relay_signals,
        ends_at_second=is_alone,
        at_end=partial(_remove, config.uds_file) if is_alone else bool,
    )
    loop.watch_signals(Deadline.get().serve(options))


def _handling_server(signum: int) -> uvicorn.Server | None:
    """The server whose handler the signal has: none any more once uvicorn has ended and raises it again."""
    server = getattr(signal.getsignal(signum), "__self__", None) if signum in ENDS else None
    return server if isinstance(server, uvicorn.Server) else None


def _waited() -> str:
    for server in filter(None, map(_handling_server, ENDS)):
        counts = {"connection": len(server.server_state.connections), "task": len(server.server_state.tasks)}
        return ", ".join(f"{count} {noun}{'s' * (count != 1)}" for noun, count in counts.items() if count)
    return ""


def _watch_supervisor(config: ServerConfig) -> None:
    """Have this process and its workers gone in time after its first signal, and at its second at once."""
    if config.timeout_graceful_shutdown is None:
        return
    options = DeadlineOptions(
        config.timeout_graceful_shutdown,
        lambda signum: signum in ENDS,
        waited=lambda: f"{len(multiprocessing.active_children())} processes",
        at_end=partial(_kill_workers, config.uds_file),
    )
    signal.set_wakeup_fd(Deadline.get().serve(options), warn_on_full_buffer=False)


def _kill_workers(uds_file: str | None) -> None:
    for child in multiprocessing.active_children():
        child.kill()
    _remove(uds_file)


def _remove(uds_file: str | None) -> None:
    if uds_file is not None:
        with suppress(OSError):
            os.unlink(uds_file)


def _supervise(config: ServerConfig, listener: socket.socket) -> int:
    server = Server(config)
    # an inherited socket stays open, and its clients wait there for the next server
    server.owns_listener = config.fd is None and not config.should_reload and config.workers == 1
    try:
        if config.should_reload or config.workers > 1:
            _watch_supervisor(config)
        if config.should_reload:
            Reloader(config, target=server.run, sockets=[listener]).run()
        elif config.workers > 1:
            # Workers make their own servers in newer uvicorns; older ones are told what to run.
            target = {"target": server.run} if "target" in signature(Multiprocess).parameters else {}
            workers = Workers(config, sockets=[listener], **target)
            workers.run()
            if workers.has_failed():
                return FAILED_START
        else:
            signal.signal(signal.SIGTERM, partial(_on_sigterm, server))
            server.run(sockets=[listener])
            if server.should_exit and signal.SIGTERM in server._captured_signals:
                return 128 + signal.SIGTERM
            return 0 if server.started else 3
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    ended_by = Deadline.get().signum
    return 0 if ended_by is None else 128 + ended_by


def _on_sigterm(server: uvicorn.Server, signum: int, frame: FrameType | None) -> None:
    # After the drain uvicorn raises the signal once more, for whoever had it before. Then the process ends by an exit
    # code, not by the default action, so that the Unix socket's file is removed; and not by an exception in a task.
    if not server.should_exit:
        raise SystemExit(128 + signum)


def _name(app: Any) -> str:
    return app if isinstance(app, str) else getattr(app, "__qualname__", type(app).__qualname__)


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


@contextmanager
def listening(binding: Binding) -> Iterator[socket.socket]:
    """A bound, inheritable socket; it is closed, and a Unix socket's file removed, at the end."""
    listener = _bound(binding)
    listener.set_inheritable(True)
    try:
        yield listener
    finally:
        listener.close()
        if binding.uds is not None and os.path.exists(binding.uds):
            os.unlink(binding.uds)


def _bound(binding: Binding) -> socket.socket:
    if binding.fd is not None:
        return _inherited(binding)
    return _bind_uds(binding.uds) if binding.uds is not None else _bind_tcp(binding)


def _inherited(binding: Binding) -> socket.socket:
    try:
        listener = socket.socket(fileno=binding.fd)
        if listener.type == socket.SOCK_STREAM:
            return listener
        reason = "not a stream socket"
    except OSError as error:
        reason = error.strerror or str(error)
    raise OSError(errno.EBADF, f"cannot listen on {binding}: {reason}")


def _bind_tcp(binding: Binding) -> socket.socket:
    try:
        found = socket.getaddrinfo(binding.host or None, binding.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise OSError(error.errno, f"cannot listen on {binding}: {error.strerror}") from None
    family, kind, number, _, address = found[0]
    listener = socket.socket(family, kind, number)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        if binding.port != 0:
            _claim(listener)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"cannot listen on {binding}: {_why(error)}") from None
    return listener


def _claim(listener: socket.socket) -> None:
    """Have a server that is started on the same port hear of it, although nothing listens there yet."""
    listener.listen()
    with suppress(OSError):
        # no longer listening, and bound still
        listener.shutdown(socket.SHUT_RD)
        # the port is then no other's, until the server is about to listen
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)


def _why(error: OSError) -> str:
    reason = os.strerror(error.errno) if error.errno else str(error)
    if error.errno == errno.EADDRINUSE:
        return f"{reason}; stop what listens there or choose another --port (0 picks a free one)"
    if error.errno == errno.EACCES:
        return f"{reason}; ports below 1024 need privileges, choose a higher --port"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{reason}; --host must be an address of this machine"
    return reason


def _bind_uds(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    try:
        _remove_stale(path)
        listener.bind(path)
        os.chmod(path, 0o666)  # as uvicorn: whoever can reach the directory may connect
        # at once: a socket file that nobody listens on is taken for one that is left over
        listener.listen()
    except OSError as error:
        listener.close()
        reason = os.strerror(error.errno) if error.errno else str(error)
        if error.errno == errno.EEXIST:
            reason = "a file is there that is not a socket; remove it or choose another --uds"
        raise OSError(error.errno, f"cannot listen on {path}: {reason}") from None
    return listener


def _remove_stale(path: str) -> None:
    # A socket file outlives the server that made it; one that nobody answers on is in the way.
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise FileExistsError(errno.EEXIST, path)
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
