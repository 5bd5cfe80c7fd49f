"""Commands to a running supervisor of this user: `penstock scale`, `reload`, `workers` and `stop`."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from penstock.cli.options import Failure, LineParser
from penstock.cli.output import write_out
from penstock.runtime.supervisor.control_client import ask, explain_absence, supervisors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["COMMANDS", "main_of"]

# the longest wait for an answer that takes no time, and for a reload
ANSWER_S = 10.0
RELOAD_S = 300.0
COLUMNS = ("number", "pid", "generation", "state", "age", "in flight", "served", "connections", "RSS")
MIB = 1024 * 1024


def main_of(command: str) -> Callable[[Sequence[str]], int]:
    """Return the main function of a command."""
    return COMMANDS[command]


def _scale(arguments: Sequence[str]) -> int:
    parser = _parser("scale", "N [PID]", "Change the number of workers of a running 'penstock serve --workers'.")
    parser.add_argument("count", metavar="N", type=_count, help="number of workers")
    options = _parsed(parser, arguments)
    _answer(options.pid, "scale", ANSWER_S, count=options.count)
    write_out(f"supervisor {options.pid}: {options.count} worker{'s' * (options.count != 1)}\n")
    return 0


def _reload(arguments: Sequence[str]) -> int:
    parser = _parser("reload", "[options] [PID]", "Replace the workers by new ones, and wait until that is done.")
    parser.add_argument("--timeout", metavar="SECONDS", type=_seconds, default=RELOAD_S, help="default 300")
    options = _parsed(parser, arguments)
    answer = _answer(options.pid, "reload", options.timeout)
    write_out(f"supervisor {options.pid}: generation {answer.get('generation', '?')} serves\n")
    return 0


def _workers(arguments: Sequence[str]) -> int:
    parser = _parser("workers", "[options] [PID]", "Show the workers of a running 'penstock serve --workers'.")
    parser.add_argument("--json", action="store_true", help="as JSON")
    options = _parsed(parser, arguments)
    answer = _answer(options.pid, "workers", ANSWER_S)
    write_out(json.dumps(answer) + "\n" if options.json else render_workers(answer))
    return 0


def _stop(arguments: Sequence[str]) -> int:
    options = _parsed(_parser("stop", "[PID]", "Stop a running 'penstock serve --workers' as SIGTERM does."), arguments)
    _answer(options.pid, "stop", ANSWER_S)
    write_out(f"supervisor {options.pid}: stops\n")
    return 0


COMMANDS = {"scale": _scale, "reload": _reload, "workers": _workers, "stop": _stop}


def _parser(command: str, usage: str, description: str) -> LineParser:
    return LineParser(
        prog=f"penstock {command}",
        usage=f"penstock {command} {usage}",
        description=description,
        epilog="PID is the supervisor's process number; without it the only supervisor of this user is meant.",
    )


def _parsed(parser: LineParser, arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options, with the supervisor that is meant."""
    parser.add_argument("pid", metavar="PID", nargs="?", type=_count, help="process number of the supervisor")
    options = parser.parse_args(arguments)
    if options.pid is None:
        options.pid = _only_supervisor()
    return options


def _only_supervisor() -> int:
    found = supervisors()
    if not found:
        started_by = "one is started by 'penstock serve --workers N'"
        raise Failure(f"no supervisor of this user runs{explain_absence()}; {started_by}", code=2)
    if len(found) > 1:
        raise Failure(f"several supervisors run, choose one by PID: {', '.join(map(str, found))}", code=2)
    return found[0]


def _answer(pid: int, command: str, within_s: float, **arguments: object) -> dict[str, Any]:
    try:
        answer = ask(pid, command, within_s=within_s, **arguments)
    except ProcessLookupError as error:
        raise Failure(str(error), code=2) from error
    except OSError as error:
        raise Failure(error.strerror or str(error), code=1) from error
    if not answer["ok"]:
        raise Failure(f"supervisor {pid}: {answer.get('error') or 'no reason given'}", code=1)
    return answer


def render_workers(answer: Mapping[str, Any]) -> str:
    """Return the table of an answer to `workers`; a figure that is missing is a dash."""
    workers = answer.get("workers")
    listed = [worker for worker in workers if isinstance(worker, dict)] if isinstance(workers, list) else []
    rows = [COLUMNS, *(_row(worker) for worker in listed)]
    widths = [max(len(row[index]) for row in rows) for index in range(len(COLUMNS))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    head = f"supervisor {_text(answer.get('pid'))}, generation {_text(answer.get('generation'))}"
    return "\n".join([head, *lines]) + "\n"


def _row(worker: Mapping[str, Any]) -> tuple[str, ...]:
    plain = [_text(worker.get(name)) for name in ("number", "pid", "generation", "state")]
    counts = [_text(worker.get(name)) for name in ("requests", "served", "connections")]
    return (*plain, _age(worker.get("age_s")), *counts, _mebibytes(worker.get("rss_bytes")))


def _text(value: object) -> str:
    return "-" if value is None else " ".join(str(value).split())


def _age(value: object) -> str:
    if not isinstance(value, int | float):
        return "-"
    if value < 120:
        return f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.0f} h"


def _mebibytes(value: object) -> str:
    return f"{value / MIB:.1f} MiB" if isinstance(value, int | float) else "-"


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 10 or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 1 or more")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time: seconds, more than 0, at most 1e9")
    return value
