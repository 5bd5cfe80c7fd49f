"""The process of the page: its address, its token, its threads, and its end with its parent."""

from __future__ import annotations

import argparse
import errno
import json
import os
import secrets
import select
import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.config.converters import HOST_AND_PORT, TOKEN
from penstock.errors import PenstockError
from penstock.monitor.page.access import PageAccess
from penstock.monitor.page.launch import TOKEN_VARIABLE
from penstock.monitor.page.peer import is_loopback
from penstock.monitor.page.routes import PageRoutes
from penstock.monitor.page.sampler import PageSampler
from penstock.monitor.page.server import BACKLOG, PageServer
from penstock.monitor.sources import attached_source
from penstock.runtime.supervisor.worker.parent_tie import end_at_parents_end, lifeline

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from penstock.monitor.sources import ProcessSource

__all__ = ["PageFailure", "PageOptions", "chosen_token", "main", "serve_page", "split_address"]

# of a token that is made: 192 random bits
TOKEN_BYTES = 24
# between two tries for an address that is in use
RETRY_S = 0.5
# a token is one short line; no more of the file is read
MOST_TOKEN_FILE_BYTES = 4096


class PageFailure(PenstockError):
    """A page that cannot be served. Its text is one line."""


@dataclass(frozen=True, slots=True)
class PageOptions:
    """The options of a page.

    `pid` is the process to show, or the supervisor of its workers. `names` are further names of the host. `parent` is
    the process with which the page ends. `within_s` is the longest wait for an address that is in use: after an
    upgrade, the page of the former supervisor still has it for a while.
    """

    pid: int
    host: str = "127.0.0.1"
    port: int = 0
    token: str | None = field(default=None, repr=False)
    names: tuple[str, ...] = ()
    parent: int | None = None
    within_s: float = 0.0
    # the address is printed as JSON, to stdout
    as_json: bool = False


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve a page as the arguments say; return the exit code. The token comes by a variable of the environment."""
    parser = argparse.ArgumentParser(prog="python -m penstock.monitor.page", allow_abbrev=False)
    parser.add_argument("pid", type=int)
    parser.add_argument("--bind", default="127.0.0.1:0")
    parser.add_argument("--parent", type=int)
    parser.add_argument("--allow-host", action="append", default=[])
    parser.add_argument("--within", type=float, default=0.0)
    given = parser.parse_args(arguments)
    if given.parent is not None:
        # a terminal sends SIGINT to all its processes: the service may drain yet
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        end_at_parents_end(given.parent)
    try:
        host, port = split_address(given.bind)
        token = chosen_token(os.environ, None)
        names = tuple(given.allow_host)
        serve_page(PageOptions(given.pid, host, port, token, names, given.parent, given.within))
    except PageFailure as failure:
        print(f"penstock monitor: {failure}", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        return 0
    return 0


def split_address(text: str) -> tuple[str, int]:
    """Return the host and the port of HOST:PORT. Raises PageFailure."""
    try:
        host, _, port = str(HOST_AND_PORT.parse(text)).rpartition(":")
    except ValueError:
        raise PageFailure(f"{text!r} is not {HOST_AND_PORT.allowed}") from None
    return host.strip("[]"), int(port)


def chosen_token(environ: Mapping[str, str], file: str | None) -> str | None:
    """Return the token of the file, else of the environment, else None. Raises PageFailure, without the token."""
    text, source = environ.get(TOKEN_VARIABLE, ""), TOKEN_VARIABLE
    if file is not None:
        try:
            with Path(file).open(encoding="utf-8") as stream:
                text, source = stream.read(MOST_TOKEN_FILE_BYTES).strip(), file
        except (OSError, UnicodeDecodeError) as error:
            raise PageFailure(f"cannot read the token of {file}: {error}") from None
    if not text and file is None:
        return None
    try:
        return str(TOKEN.parse(text))
    except ValueError:
        raise PageFailure(f"the token of {source} is not {TOKEN.allowed}") from None


def serve_page(options: PageOptions, source: ProcessSource | None = None) -> None:
    """Serve the page until the parent's end, or a signal. Raises PageFailure if it cannot begin."""
    listener = _listening(options)
    host, port = listener.getsockname()[:2]
    is_made = options.token is None and not is_loopback(host)
    token = secrets.token_urlsafe(TOKEN_BYTES) if is_made else options.token
    names = (*(name.lower() for name in options.names), socket.gethostname().lower())
    access = PageAccess(host, port, token, names)
    sampler = PageSampler(source or attached_source(options.pid))
    routes = PageRoutes(sampler, access)
    sampler.start()
    server = PageServer(listener, routes.handle, access.check_user if is_loopback(host) else bool)
    server.start()
    _announce(options, host, port, token if is_made else None)
    try:
        _wait(options.parent)
    finally:
        sampler.close()
        server.close()


def _listening(options: PageOptions) -> socket.socket:
    until_s = time.monotonic() + options.within_s
    while True:
        try:
            return _listener(options.host, options.port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > until_s:
                reason = error.strerror or str(error)
                raise PageFailure(f"no page at {_authority(options.host, options.port)}: {reason}") from None
        time.sleep(RETRY_S)


def _listener(host: str, port: int) -> socket.socket:
    family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, number)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _announce(options: PageOptions, host: str, port: int, token: str | None) -> None:
    """Print the address. A token that was made is printed this once, as a fragment, which no browser sends."""
    shown = socket.gethostname() if host in ("0.0.0.0", "::") else host
    url = f"http://{_authority(shown, port)}/"
    if options.as_json:
        print(json.dumps({"pid": options.pid, "url": url, "token": token}), flush=True)
        return
    fragment = "" if token is None else f"#token={token}"
    print(f"penstock monitor: process {options.pid} is shown at {url}{fragment}", file=sys.stderr, flush=True)


def _wait(parent: int | None) -> None:
    if parent is None:
        while True:
            signal.pause()
    pidfd = lifeline(parent)
    poll = select.poll()
    if pidfd >= 0:
        poll.register(pidfd, select.POLLIN)
    # without a descriptor of the parent, its number shows whether it has ended
    while not poll.poll(1000) and (pidfd >= 0 or os.getppid() == parent):
        pass
