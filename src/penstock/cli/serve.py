"""`penstock serve`: an ASGI application by uvicorn on penstock's loop.

Everything that can be wrong with the arguments is looked at before uvicorn starts, so that it is one line and not a
worker's traceback.
"""

import argparse
import os
import ssl
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from penstock.cli.frames import user_frames
from penstock.cli.options import Failure, LineParser, check_config, load_config
from penstock.config import Config
from penstock.integrations.asgi import load_app

__all__ = ["main"]

LOG_LEVELS = ("critical", "error", "warning", "info", "debug", "trace")


def main(arguments: Sequence[str]) -> int:
    """Serve the application the arguments name until a signal ends it; returns the exit code."""
    options = _parser().parse_args(arguments)
    config = load_config(options)
    _require_uvicorn()
    sys.path.insert(0, os.getcwd())
    check_config(config)
    app = _attempt(lambda: load_app(options.app, factory=options.factory), code=2)
    if options.factory and not _many_processes(options):
        app = app()
    return int(_attempt(lambda: _serve(app, options, config), code=1))


def _parser() -> LineParser:
    parser = LineParser(
        prog="penstock serve",
        usage="penstock serve [options] module:app",
        description="Serve an ASGI application by uvicorn on penstock's event loop.",
    )
    add = parser.add_argument
    add("app", metavar="module:app", help=argparse.SUPPRESS)
    add("--host", default="127.0.0.1", help="address to listen on; default 127.0.0.1")
    add("--port", type=_port, default=8000, help="port; default 8000, 0 picks a free one")
    add("--uds", metavar="PATH", help="listen on a Unix socket instead")
    add("--workers", type=_count, default=1, metavar="N", help="processes; default 1")
    add("--reload", action="store_true", help="restart when a source file changes")
    add("--factory", action="store_true", help="module:app is a function that makes the app")
    add("--ssl-certfile", metavar="FILE", help="TLS certificate chain")
    add("--ssl-keyfile", metavar="FILE", help="its key, if not in the same file")
    add("--ssl-keyfile-password", metavar="TEXT", help="what decrypts the key")
    add("--backlog", type=_count, metavar="N", help="unaccepted connections; pressure.backlog")
    add("--log-level", choices=LOG_LEVELS, metavar="LEVEL", help="critical, error, warning, info, debug, trace")
    add("--access-log", action=argparse.BooleanOptionalAction, default=True, help="a line per request; default yes")
    parser.add_config_options()
    return parser


def _serve(app: Any, options: argparse.Namespace, config: Config) -> int:
    from penstock.integrations.uvicorn import Binding, Tls, serve

    if options.ssl_keyfile and not options.ssl_certfile:
        raise Failure("--ssl-keyfile needs --ssl-certfile", code=2)
    tls = None
    if options.ssl_certfile:
        tls = Tls(options.ssl_certfile, options.ssl_keyfile, options.ssl_keyfile_password)
        _check_tls(tls)
    several = _many_processes(options)
    if options.backlog is not None:
        config = replace(config, pressure=replace(config.pressure, backlog=options.backlog))
    return serve(
        options.app if several else app,
        Binding(options.host, options.port, options.uds),
        config,
        tls,
        factory=options.factory and several,
        workers=options.workers,
        reload=options.reload,
        log_level=options.log_level,
        access_log=options.access_log,
    )


def _many_processes(options: argparse.Namespace) -> bool:
    return bool(options.reload or options.workers > 1)


def _attempt(step: Callable[[], Any], *, code: int) -> Any:
    """Do a step; an error of the arguments becomes one line, an error of the user's code passes."""
    try:
        return step()
    except (ValueError, ImportError, AttributeError, TypeError, OSError) as error:
        if user_frames(error.__traceback__) is not None or isinstance(error, SyntaxError):
            raise
        message = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise Failure(message, code) from error


def _check_tls(tls: Any) -> None:
    files = " and ".join(path for path in (tls.certfile, tls.keyfile) if path)
    try:
        tls.check()
    except ssl.SSLError as error:
        raise Failure(f"{files} are no certificate and key that fit: {error.reason or error}") from error
    except OSError as error:
        raise Failure(f"cannot read {error.filename}: {error.strerror}") from error


def _require_uvicorn() -> None:
    try:
        import uvicorn  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "uvicorn":
            raise
        raise Failure("serving needs uvicorn: pip install 'penstock[serve]'") from error


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: 0 to 65535")
    return int(text)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a count: 1 or more")
    return int(text)
