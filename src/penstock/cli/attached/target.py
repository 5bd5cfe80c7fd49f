"""The process of a command, and its answers; each error is one line."""

from __future__ import annotations

import argparse
import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from penstock.cli.options import Failure, LineParser, accepted
from penstock.cli.output import write_out
from penstock.config.converters import seconds
from penstock.monitor.client import AttachedProcess, Refused, error_line, processes
from penstock.runtime.supervisor.control_client import explain_absence

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = [
    "ANSWER_S",
    "ask",
    "attached",
    "only_of",
    "parsed",
    "parser_of",
    "trace_seconds",
    "whole",
    "write_answer",
    "write_lines",
]

# The longest wait for an answer. A hundred thousand tasks take a second.
ANSWER_S = 10.0
# the longest trace that a process records for a client
MOST_TRACE_S = 60.0
LENGTHS = "a number of seconds, more than 0, at most 60"


def parser_of(command: str, usage: str, description: str) -> LineParser:
    """Return a parser with `--json` and PID."""
    parser = LineParser(
        prog=f"penstock {command}",
        usage=f"penstock {command} {usage}",
        description=description,
        epilog="PID is the number of the process, as 'penstock ps' shows it. It may be left out if only one runs.",
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("pid", metavar="PID", nargs="?", type=whole, help="the process's number")
    return parser


def parsed(parser: LineParser, arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options; without PID the only process is taken. Raises Failure if there is none, or more than one."""
    options = parser.parse_args(arguments)
    if options.pid is None:
        options.pid = only_of(processes())
    return options


def only_of(found: Sequence[int]) -> int:
    """Return the only process. Raises Failure if there is none, or more than one."""
    if not found:
        raise Failure(f"no penstock process of this user runs{explain_absence()}", code=2)
    if len(found) > 1:
        raise Failure(f"several processes run, choose one by PID: {', '.join(map(str, found))}", code=2)
    return found[0]


@contextmanager
def attached(pid: int) -> Iterator[AttachedProcess]:
    """Attach to a process. Raises Failure: with code 2 without one, with code 1 if it ends or refuses."""
    try:
        process = AttachedProcess(pid, within_s=ANSWER_S)
    except ProcessLookupError as error:
        raise Failure(error_line(error), code=2) from error
    except OSError as error:
        raise Failure(error_line(error)) from error
    try:
        with process:
            yield process
    except Refused as error:
        raise Failure(str(error)) from error
    except OSError as error:
        raise Failure(error_line(error)) from error


def ask(pid: int, command: str, *, within_s: float = ANSWER_S, **arguments: object) -> dict[str, Any]:
    """Return the answer of a process to a command; it may be partial."""
    with attached(pid) as process:
        return process.ask(command, within_s=within_s, **arguments)


def write_answer(answer: Mapping[str, Any]) -> None:
    """Write an answer as a line of JSON."""
    write_out(json.dumps(answer) + "\n")


def write_lines(lines: Sequence[str]) -> None:
    """Write lines of text."""
    write_out("".join(f"{line}\n" for line in lines))


def trace_seconds(text: str) -> float:
    """Return the text of an option as the length of a trace, at most 60 s."""
    value = float(accepted(seconds(zero=False), text, LENGTHS))
    if value > MOST_TRACE_S:
        raise argparse.ArgumentTypeError(f"{text!r} is not {LENGTHS}")
    return value


def whole(text: str) -> int:
    """Return the text of an option as a number of 1 or more."""
    if not text.isascii() or not text.isdigit() or len(text) > 18 or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 1 or more")
    return int(text)
