"""`penstock findings`: the findings of a process, with `--follow` also new ones."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, NoReturn

from penstock.cli.attached import cells
from penstock.cli.attached.partial import is_partial, partial_lines, partial_reason
from penstock.cli.attached.tables import cut_lines, terminal_width
from penstock.cli.attached.target import attached, parsed, parser_of, write_answer, write_lines
from penstock.cli.output import write_error

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from penstock.monitor.client import AttachedProcess

__all__ = ["finding_line", "main"]

# how long a process waits for a finding before it answers that there is none
WAIT_S = 10.0
# between two questions to a process whose GIL is held
HELD_S = 0.5
INTERRUPTED = 130


def main(arguments: Sequence[str]) -> int:
    """Print the findings, oldest first."""
    parser = parser_of("findings", "[options] [PID]", "Show the faults that a running process has detected.")
    parser.add_argument("--follow", action="store_true", help="wait for more, until the process ends or Ctrl-C")
    options = parsed(parser, arguments)
    with attached(options.pid) as process:
        answer = process.ask("findings")
        if options.follow:
            return _follow(process, answer, options.json)
        _write(answer, options.json)
    return 0


def _write(answer: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        write_answer(answer)
    elif is_partial(answer):
        write_lines(partial_lines(answer, terminal_width()))
    else:
        found = cells.items(answer, "findings")
        write_lines(cut_lines(map(finding_line, found), terminal_width()) if found else ["no findings"])


def _follow(process: AttachedProcess, answer: dict[str, Any], as_json: bool) -> int:
    """Print each finding as it comes, until Ctrl-C."""
    try:
        _print_all(process, answer, as_json)
    except KeyboardInterrupt:
        return INTERRUPTED


def _print_all(process: AttachedProcess, answer: dict[str, Any], as_json: bool) -> NoReturn:
    mark, was_partial = 0, False
    while True:
        if is_partial(answer):
            if not was_partial:
                reason = partial_reason(answer)
                write_error("penstock findings", f"process {process.pid}: no findings for now: {reason}")
            time.sleep(HELD_S)
        else:
            mark = int(answer.get("mark", mark))
            for finding in cells.items(answer, "findings"):
                # one finding a line, uncut: a program may read it
                write_lines([json.dumps(finding) if as_json else finding_line(finding)])
        was_partial = is_partial(answer)
        answer = process.ask("findings", since=mark, wait_s=WAIT_S, within_s=WAIT_S * 2)


def finding_line(finding: Mapping[str, Any]) -> str:
    """Return a finding as a line: its time, kind, loop and message."""
    at_s = finding.get("wall_time_s")
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_s)) if isinstance(at_s, int | float) else "-"
    return f"{at}  {cells.text(finding.get('kind'))}  {cells.text(finding.get('message'))}"
