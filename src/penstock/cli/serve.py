"""`penstock serve`: an ASGI application by uvicorn on penstock's loop.

It checks the arguments before uvicorn starts, so that an error is one line and not the traceback of a worker.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from penstock.cli.apart import check_apart
from penstock.cli.options import (
    Failure,
    LineParser,
    accepted,
    add_log_format,
    add_monitor_option,
    check_config,
    check_log_options,
    load_config,
    named_keys,
    page_beside,
    seconds_or_0,
    with_monitor,
    with_signals,
)
from penstock.cli.serving.addresses import add_address_options, check_addresses, chosen_bindings, port_number
from penstock.cli.serving.uvicorn_options import add_uvicorn_options, from_environment, uvicorn_choices
from penstock.cli.serving.worker_options import add_worker_options, is_supervised, workers_config
from penstock.cli.serving.workerbound import check_workers, most_here
from penstock.config.converters import LIMIT, PATHS, seconds
from penstock.config.groups import SERVICE_DRAIN_S
from penstock.config.pressure import SERVICE_LAG_HIGH_S
from penstock.integrations.asgi import check_app, check_target, load_app
from penstock.integrations.uvicorn.tls import Tls
from penstock.integrations.uvicorn.watching import require_watchfiles
from penstock.logformats import uvicorn_logging
from penstock.runtime.supervisor.notify import Notifier
from penstock.runtime.supervisor.upgrade import taken_over
from penstock.userframes import user_frames

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from penstock.config import Config, PressureConfig
    from penstock.integrations.uvicorn.supervised import Settings

__all__ = ["main"]

DEFAULTS = {"reload": False, "factory": False, "access_log": True}
# options that `serve` passes by name, or derives from the config
OWN = {
    *("host", "port", "uds", "fd", "workers", "reload", "factory", "log_level", "access_log", "backlog", "env_file"),
    *("ssl_certfile", "ssl_keyfile", "ssl_keyfile_password", "timeout_graceful_shutdown"),
}
# bounds that the supervisor applies
RECYCLING = ("limit_max_requests", "limit_max_requests_jitter")
LOG_LEVELS = ("critical", "error", "warning", "info", "debug", "trace")


def main(arguments: Sequence[str]) -> int:
    """Serve the application that the arguments name until a signal ends it. Return the exit code."""
    options = _options(arguments)
    # a single process takes systemd's variables itself
    taken, notifier = taken_over(os.environ), None
    if is_supervised(options):
        notifier = Notifier.from_environ(os.environ)
    # for a reload, which reads --env-file again, and for a new program that takes the place of this one
    environ = dict(os.environ)
    config = _config(options)
    _require_uvicorn()
    sys.path.insert(0, os.path.abspath(options.app_dir or "."))
    if notifier is None:
        check_config(config)
        app = _load(options)
        with page_beside(config):
            return int(_attempt(lambda: _serve(app, options, config), code=1))
    _check_apart_from_the_application(options, config)

    def read_again() -> Settings:
        os.environ.clear()
        os.environ.update(environ)
        again = _options(arguments)
        return _settings(again, _config(again))

    from penstock.integrations.uvicorn.supervised import WorkerService

    count = options.workers or 1
    most = max(most_here(), count)
    first = _settings(options, config)
    service = WorkerService(read_again, first, count, most, notifier, environ, taken)
    with page_beside(config):
        return int(_attempt(lambda: service.run(options.bindings), code=1))


def _config(options: argparse.Namespace) -> Config:
    """Read `--env-file`, then the config, and apply the options to it."""
    _load_env_file(options)
    config, named = with_signals(load_config(options), options.drain), named_keys(options)
    if config.signals.drain_s is None and "signals.drain_s" not in named:
        config = replace(config, signals=replace(config.signals, drain_s=SERVICE_DRAIN_S))
    if options.drain_delay is not None:
        config = replace(config, serve=replace(config.serve, drain_delay_s=options.drain_delay))
    config = with_monitor(config, options.monitor)
    workers = workers_config(options, config.workers, named)
    return replace(config, pressure=_pressure(options, config.pressure, named), workers=workers)


def _check_apart_from_the_application(options: argparse.Namespace, config: Config) -> None:
    """Report mistakes before a worker starts, without the application in this process."""
    _attempt(lambda: check_target(options.app), code=2)
    if options.reload:
        _attempt(require_watchfiles, code=2)
    # the config may name functions of the application
    check_apart(lambda: check_config(config))


def _load(options: argparse.Namespace) -> Any:
    """Return the application."""
    is_wsgi = options.interface == "wsgi"
    app = _attempt(lambda: load_app(options.app, factory=options.factory, wsgi=is_wsgi), code=2)
    if options.factory:
        app = _attempt(lambda: check_app(app(), f"the result of {options.app}", wsgi=is_wsgi), code=1)
    return app


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line, then UVICORN_* variables, then the defaults."""
    parser = _parser(is_help_whole="--help-all" in arguments)
    options = parser.parse_args(arguments)
    check_addresses(options)
    from_environment(parser, options, os.environ)
    if options.app is None:
        parser.error("the following arguments are required: module:app")
    options.bindings = chosen_bindings(options, os.environ)
    for name, default in {
        **DEFAULTS,
        **dict.fromkeys(("app_dir", "env_file", "interface", "log_config")),
    }.items():
        if getattr(options, name, None) is None:
            setattr(options, name, default)
    check_log_options(options)
    if options.workers is not None:
        check_workers(options.workers)
    return options


def _load_env_file(options: argparse.Namespace) -> None:
    """Load `--env-file` before the config and the application: both read the environment."""
    if options.env_file is None:
        return
    try:
        dotenv = importlib.import_module("dotenv")
    except ModuleNotFoundError as error:
        raise Failure("--env-file needs python-dotenv: pip install python-dotenv") from error
    try:
        with open(options.env_file, encoding="utf-8") as stream:
            dotenv.load_dotenv(stream=stream)
    except OSError as error:
        raise Failure(f"cannot read --env-file {options.env_file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise Failure(f"--env-file {options.env_file} is not UTF-8") from error


def _parser(*, is_help_whole: bool) -> LineParser:
    parser = LineParser(
        prog="penstock serve",
        usage="penstock serve [options] module:app",
        description="Serve an ASGI application by uvicorn on penstock's event loop.",
        epilog="UVICORN_* variables set uvicorn's options too, WEB_CONCURRENCY sets --workers. Guide: docs/serve.md.",
    )
    parser.whole_help = "--help-all"
    add = parser.add_argument
    add("app", metavar="module:app", nargs="?", help=argparse.SUPPRESS)
    add("--help-all", action="help", help="show uvicorn's options too; each can be given")
    add_address_options(parser)
    add_worker_options(parser, in_help=is_help_whole)
    add("--reload", action="store_true", default=None, help="restart when a source file changes")
    add("--factory", action="store_true", default=None, help="module:app is a function that makes the app")
    add("--ssl-certfile", metavar="FILE", help="TLS certificate chain")
    add("--ssl-keyfile", metavar="FILE", help="private key, if not in the same file")
    add("--ssl-keyfile-password", metavar="TEXT", help="password of the private key")
    add("--backlog", type=_count, metavar="N", help="unaccepted connections; pressure.backlog")
    add("--limit", type=_limit, metavar="N", help="most requests at once, or auto; pressure.limit")
    add(
        "--deadline",
        type=_seconds,
        metavar="SECONDS",
        help="shed requests that cannot end in time; pressure.deadline_s",
    )
    add("--max-wait", type=seconds_or_0, metavar="SECONDS", help="of a request at the limit; pressure.max_wait_s")
    add("--health-port", type=port_number, metavar="N", help="port of /livez, /readyz; pressure.health_port")
    add("--health-host", metavar="HOST", help="address of that port; default: as --host; pressure.health_host")
    add(
        "--health-path",
        type=_path,
        action="append",
        metavar="PATH",
        help="path of a health check; default /healthz, /livez and /readyz; none for no path; pressure.health_paths",
    )
    add(
        "--exempt-path",
        type=_path,
        action="append",
        metavar="PATH",
        help="path without a limit; /events/*: all below /events/; pressure.exempt_paths",
    )
    _add_drain_options(parser)
    add_monitor_option(parser)
    add("--log-level", choices=LOG_LEVELS, metavar="LEVEL", help="critical, error, warning, info, debug, trace")
    add_log_format(parser)
    add("--access-log", action=argparse.BooleanOptionalAction, help="log a line per request; default yes")
    parser.add_config_options()
    add_uvicorn_options(parser, in_help=is_help_whole)
    return parser


def _add_drain_options(parser: LineParser) -> None:
    parser.add_argument(
        "--drain",
        "--timeout-graceful-shutdown",
        dest="drain",
        type=seconds_or_0,
        metavar="SECONDS",
        help="longest wait for work in flight at a stop; default 10; signals.drain_s",
    )
    parser.add_argument(
        "--drain-delay", type=seconds_or_0, metavar="SECONDS", help="not ready, but serving; serve.drain_delay_s"
    )


def _serve(app: Any, options: argparse.Namespace, config: Config) -> int:
    from penstock.integrations.uvicorn.serving import serve
    from penstock.runtime.attach.role import ProcessRole
    from penstock.runtime.attach.service import attach_service

    attach_service.role = ProcessRole(f"serve {options.app}")
    log_format = options.log_format or "text"
    return serve(app, options.bindings, config, name=options.app, log_format=log_format, **_choices(options, config))


def _settings(options: argparse.Namespace, config: Config) -> Settings:
    """Return the settings of a generation of workers, from options and config as they are now."""
    from penstock.integrations.uvicorn.supervised import Settings

    choices = {name: value for name, value in _choices(options, config).items() if name not in RECYCLING}
    choices |= {"factory": options.factory, "reload": options.reload, "workers": 1}
    return Settings(options.app, config, choices, dict(os.environ), options.log_format or "text")


def _choices(options: argparse.Namespace, config: Config) -> dict[str, Any]:
    """Return the arguments of uvicorn's config."""
    from penstock.integrations.uvicorn.server_config import check_protocols

    choices = {name: value for name, value in uvicorn_choices(options).items() if name not in OWN}
    choices.setdefault("log_config", uvicorn_logging(options.log_format or "text"))
    _attempt(lambda: check_protocols(choices), code=2)
    tls = _tls(options, choices)
    return choices | {
        "backlog": config.pressure.backlog,
        "timeout_graceful_shutdown": config.signals.drain_s,
        "log_level": options.log_level,
        "access_log": options.access_log,
        **({} if tls is None else tls.choices()),
    }


def _tls(options: argparse.Namespace, choices: dict[str, Any]) -> Tls | None:
    if options.ssl_certfile:
        tls = Tls(options.ssl_certfile, options.ssl_keyfile, options.ssl_keyfile_password)
        tls.check(choices)
        return tls
    for name in ("ssl_keyfile", "ssl_ca_certs"):
        if getattr(options, name, None):
            raise Failure(f"--{name.replace('_', '-')} needs --ssl-certfile", code=2)
    return None


def _pressure(options: argparse.Namespace, given: PressureConfig, named: frozenset[str]) -> PressureConfig:
    """Return the group with the options applied. With a limit, the loop also measures its lag.

    `named` are the keys that the config sets: one that is set to none stays none.
    """
    chosen = {
        "backlog": options.backlog,
        "limit": options.limit,
        "deadline_s": options.deadline,
        "max_wait_s": options.max_wait,
        "health_port": options.health_port,
        "health_host": options.health_host,
        "health_paths": _paths(options.health_path),
        "exempt_paths": _paths(options.exempt_path),
    }
    pressure = replace(given, **{key: value for key, value in chosen.items() if value is not None})
    if pressure.limit is None:
        for option, value in (("--deadline", options.deadline), ("--max-wait", options.max_wait)):
            if value is not None:
                raise Failure(f"{option} needs --limit, a number or auto: without a limit nothing is shed", code=2)
    elif pressure.lag_high_s is None and "pressure.lag_high_s" not in named:
        pressure = replace(pressure, lag_high_s=SERVICE_LAG_HIGH_S)
    return pressure


def _attempt(step: Callable[[], Any], *, code: int) -> Any:
    """Return `step()`; an error in the arguments becomes a Failure, one in the user's code propagates."""
    try:
        return step()
    except (ValueError, ImportError, AttributeError, TypeError, OSError) as error:
        if user_frames(error.__traceback__) is not None or isinstance(error, SyntaxError):
            raise
        message = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise Failure(message, code) from error


def _require_uvicorn() -> None:
    try:
        import uvicorn  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "uvicorn":
            raise
        raise Failure("serving needs uvicorn: pip install 'penstock[serve]'") from error


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a count: 1 or more")
    return int(text)


def _path(text: str) -> object:
    return accepted(PATHS, text, "a path: from / on, or none")


def _paths(given: list[tuple[str, ...]] | None) -> tuple[str, ...] | None:
    return None if given is None else tuple(path for paths in given for path in paths)


def _limit(text: str) -> object:
    return accepted(LIMIT, text, 'a limit: a count of 1 or more, or "auto"')


def _seconds(text: str) -> object:
    return accepted(seconds(zero=False), text, "a time: seconds, more than 0")
