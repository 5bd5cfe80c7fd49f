"""`penstock top`: a running process in the terminal."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Any

from penstock.cli.attached.target import attached, whole
from penstock.cli.options import Failure, LineParser
from penstock.errors import PenstockError
from penstock.monitor.client import AttachedProcess, processes
from penstock.monitor.sources import attached_source
from penstock.runtime.supervisor.control_client import explain_absence, supervisors

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

# a shorter one would load the process that it shows
LEAST_INTERVAL_S = 0.1
# the longest wait for a process's name in the list
NAME_S = 0.5


def main(arguments: Sequence[str]) -> int:
    """Run `penstock top` and return the exit code."""
    options = _parser().parse_args(arguments)
    if not (_is_terminal(sys.stdin) and _is_terminal(sys.stdout)):
        raise Failure("a terminal is needed; 'penstock tasks --json' is for programs", code=2)
    top = _application()
    choices = [] if options.pid is not None else _choices()
    pid = choices[0][0] if len(choices) == 1 else options.pid
    if pid is not None:
        _check(pid)
    if top.is_colourless():
        os.environ["NO_COLOR"] = "1"
    application = top.TopApp(attached_source, pid, choices=choices, interval_s=options.interval)
    application.run()
    return application.return_code or 0


def _parser() -> LineParser:
    parser = LineParser(
        prog="penstock top",
        usage="penstock top [--interval SECONDS] [PID]",
        description="Show a running process, or the workers of a 'penstock serve --workers', in the terminal.",
        epilog="PID is the number of a process or of a supervisor. Without it a list is shown if there are several.",
    )
    parser.add_argument(
        "--interval", metavar="SECONDS", type=_interval, default=0.5, help="between two questions; default: 0.5"
    )
    parser.add_argument("pid", metavar="PID", nargs="?", type=whole, help="the process's number")
    return parser


def _interval(text: str) -> float:
    try:
        interval_s = float(text)
    except ValueError:
        interval_s = 0.0
    if not LEAST_INTERVAL_S <= interval_s <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from {LEAST_INTERVAL_S} to 3600")
    return interval_s


def _is_terminal(stream: Any) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:
        return False


def _application() -> Any:
    try:
        import penstock.monitor.top.app as top
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("textual", "rich"):
            raise
        raise Failure("textual is not installed: pip install 'penstock[tui]'") from error
    return top


def _choices() -> list[tuple[int, str]]:
    """Return the supervisors and the processes without one, each with its description."""
    parents = supervisors()
    found = [(pid, f"{pid}  the workers of a supervisor, together") for pid in parents]
    for pid in processes():
        about = _about(pid)
        worker = about.get("worker") or {}
        number = f"worker {worker.get('number')} of {worker.get('supervisor')}" if worker else ""
        if pid not in parents:
            found.append((pid, f"{pid}  {about.get('name') or 'a process'}  {number}".rstrip()))
    if not found:
        raise Failure(f"no penstock process of this user runs{explain_absence()}", code=2)
    workers = [text for _, text in found if "worker" in text]
    # the only supervisor with its workers is one choice
    return found[:1] if len(parents) == 1 and len(workers) == len(found) else found


def _about(pid: int) -> dict[str, Any]:
    try:
        with AttachedProcess(pid, within_s=NAME_S) as process:
            return process.ask("about").get("process") or {}
    except (OSError, PenstockError):
        return {}


def _check(pid: int) -> None:
    """Attach to the process once. Raises Failure in one line if that is impossible."""
    if pid not in supervisors():
        with attached(pid):
            pass
