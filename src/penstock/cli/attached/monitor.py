"""`penstock monitor`: the web page of a running process, or of the workers of a running supervisor."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from penstock.cli.attached.target import only_of, whole
from penstock.cli.options import Failure, LineParser, host_and_port
from penstock.monitor.client import processes
from penstock.monitor.page.process import PageFailure, PageOptions, chosen_token, serve_page, split_address
from penstock.runtime.supervisor.control_client import explain_absence, supervisors

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

# loopback, and any free port
BIND = "127.0.0.1:0"


def main(arguments: Sequence[str]) -> int:
    """Serve the page until a signal ends it. Return the exit code."""
    parser = LineParser(
        prog="penstock monitor",
        usage="penstock monitor [options] [PID]",
        description="Serve a web page that shows a running process, or the workers of a supervisor.",
        epilog="The token comes from --token-file or PENSTOCK_MONITOR_PAGE_TOKEN. Guide: docs/monitor.md.",
    )
    parser.add_argument("pid", metavar="PID", nargs="?", type=whole, help="the process, or the supervisor of workers")
    parser.add_argument(
        "--bind", type=host_and_port, default=BIND, metavar="HOST:PORT", help="default 127.0.0.1 and any free port"
    )
    parser.add_argument("--token-file", metavar="FILE", help="ask every visitor for the token in this file")
    parser.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME", help="answer requests to this name of the machine"
    )
    parser.add_argument("--json", action="store_true", help="print the address as JSON, with a token that was made")
    options = parser.parse_args(arguments)
    pid = _target(options.pid)
    try:
        host, port = split_address(options.bind)
        token = chosen_token(os.environ, options.token_file)
        names = tuple(options.allow_host)
        serve_page(PageOptions(pid, host, port, token, names, as_json=options.json))
    except PageFailure as failure:
        raise Failure(str(failure)) from None
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


def _target(given: int | None) -> int:
    """Return the chosen process or supervisor. Raises Failure if there is none, or more than one."""
    parents, found = supervisors(), processes()
    if given is None:
        return only_of(parents or found)
    if given not in parents and given not in found:
        raise Failure(f"process {given} is no penstock process of this user{explain_absence()}", code=2)
    return given
