"""A list of what happens in a process, such as its findings: what is kept, and with `--follow` also what is new."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, NoReturn

from penstock.cli.attached import cells
from penstock.cli.attached.partial import is_partial, partial_lines, partial_reason
from penstock.cli.attached.tables import cut_lines, terminal_width
from penstock.cli.attached.target import write_answer, write_lines
from penstock.cli.output import write_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from penstock.monitor.client import AttachedProcess

__all__ = ["follow", "show", "time_of"]

# how long a process waits for news before it answers that there is none
WAIT_S = 10.0
# between two questions to a process whose GIL is held
HELD_S = 0.5
INTERRUPTED = 130


def show(
    answer: Mapping[str, Any], command: str, line_of: Callable[[Mapping[str, Any]], str], *, as_json: bool
) -> None:
    """Write the answer to a command, whose list has the command's name."""
    if as_json:
        write_answer(answer)
    elif is_partial(answer):
        write_lines(partial_lines(answer, terminal_width()))
    else:
        found = cells.items(answer, command)
        write_lines(cut_lines(map(line_of, found), terminal_width()) if found else [f"no {command}"])


def follow(
    process: AttachedProcess,
    answer: dict[str, Any],
    command: str,
    line_of: Callable[[Mapping[str, Any]], str],
    *,
    as_json: bool,
) -> int:
    """Write each item of the answer, and those to come, until Ctrl-C."""
    try:
        _write_all(process, answer, command, json.dumps if as_json else line_of)
    except KeyboardInterrupt:
        return INTERRUPTED


def _write_all(
    process: AttachedProcess, answer: dict[str, Any], command: str, line_of: Callable[[Any], str]
) -> NoReturn:
    mark, was_partial = 0, False
    while True:
        if is_partial(answer):
            if not was_partial:
                reason = partial_reason(answer)
                write_error(f"penstock {command}", f"process {process.pid}: no {command} for now: {reason}")
            time.sleep(HELD_S)
        else:
            mark = int(answer.get("mark", mark))
            for item in cells.items(answer, command):
                # one a line, uncut: a program may read it
                write_lines([line_of(item)])
        was_partial = is_partial(answer)
        answer = process.ask(command, since=mark, wait_s=WAIT_S, within_s=WAIT_S * 2)


def time_of(item: Mapping[str, Any]) -> str:
    """Return the local time of an item."""
    at_s = item.get("wall_time_s")
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_s)) if isinstance(at_s, int | float) else "-"
