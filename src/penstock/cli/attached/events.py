"""`penstock findings` and `penstock cancellations`: what a process has kept, with `--follow` also what is new."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock.cli.attached import cells
from penstock.cli.attached.follow import follow, show, time_of
from penstock.cli.attached.target import attached, parsed, parser_of
from penstock.cli.output import write_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["cancellation_line", "finding_line", "main_of"]

ABOUT = {
    "findings": "Show the faults that a running process has detected.",
    "cancellations": "Show the cancelled tasks of a running process and their cancellers.",
}
NOT_RECORDED = "cancellations are not recorded (tasks.name_cancellers is false)"


def main_of(command: str) -> Callable[[Sequence[str]], int]:
    """Return the main function of a command. It prints its list, oldest first."""

    def main(arguments: Sequence[str]) -> int:
        parser = parser_of(command, "[options] [PID]", ABOUT[command])
        parser.add_argument("--follow", action="store_true", help="wait for more, until the process ends or Ctrl-C")
        options = parsed(parser, arguments)
        line_of = {"findings": finding_line, "cancellations": cancellation_line}[command]
        with attached(options.pid) as process:
            answer = process.ask(command)
            if answer.get("enabled") is False:
                write_error(f"penstock {command}", f"process {process.pid}: {NOT_RECORDED}")
            if options.follow:
                return follow(process, answer, command, line_of, as_json=options.json)
            show(answer, command, line_of, as_json=options.json)
        return 0

    return main


def finding_line(finding: Mapping[str, Any]) -> str:
    """Return a finding as a line: its time, kind, loop and message."""
    return f"{time_of(finding)}  {cells.text(finding.get('kind'))}  {cells.text(finding.get('message'))}"


def cancellation_line(found: Mapping[str, Any]) -> str:
    """Return a cancellation as a line: its time, the task, its cancellers and the place of the call."""
    chain = found.get("chain")
    names = [cells.text(name) for name in chain] if isinstance(chain, list) else []
    by = ", itself cancelled by ".join(names) or f"no task, in thread {cells.text(found.get('thread'))}"
    return f"{time_of(found)}  {_task(found.get('task'))} by {by}  at {cells.place(found.get('place'))}"


def _task(task: object) -> str:
    named = task if isinstance(task, dict) else {}
    site = named.get("site")
    return cells.text(named.get("name")) + (f" (made at {cells.place(site)})" if site else "")
