"""`penstock level`, and the actions of a process that allows them: `cancel`, `gc` and `set-limit`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock.cli.attached import cells
from penstock.cli.attached.partial import is_partial, partial_reason
from penstock.cli.attached.target import ask, parsed, parser_of, whole, write_answer, write_lines
from penstock.cli.options import Failure

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

__all__ = ["COMMANDS", "main_of"]

LEVELS = ("off", "count", "time", "trace")
ALLOWED = "The process must allow actions: monitor.actions = true in its config."


def main_of(command: str) -> Callable[[Sequence[str]], int]:
    """Return the main function of a command."""
    return COMMANDS[command]


def _level(arguments: Sequence[str]) -> int:
    parser = parser_of("level", "[PID] LEVEL", "Set how much all loops of a process record of each task.")
    parser.add_argument("level", metavar="LEVEL", choices=LEVELS, help=", ".join(LEVELS))
    options = parsed(parser, arguments)
    return _act(options, "level", level=options.level)


def _cancel(arguments: Sequence[str]) -> int:
    parser = parser_of("cancel", "[PID] NUMBER", f"Cancel a task by its number in 'penstock tasks'. {ALLOWED}")
    parser.add_argument("number", metavar="NUMBER", type=whole, help="the task's number")
    options = parsed(parser, arguments)
    return _act(options, "cancel", number=options.number)


def _gc(arguments: Sequence[str]) -> int:
    parser = parser_of("gc", "[PID]", f"Collect the garbage of a process now; all its threads wait. {ALLOWED}")
    return _act(parsed(parser, arguments), "gc")


def _set_limit(arguments: Sequence[str]) -> int:
    parser = parser_of("set-limit", "[PID] GATE LIMIT", f"Change the limit of a gate. {ALLOWED}")
    parser.add_argument("gate", metavar="GATE", help="the gate's name")
    parser.add_argument("limit", metavar="LIMIT", type=whole, help="calls at a time")
    options = parsed(parser, arguments)
    return _act(options, "set-limit", gate=options.gate, limit=options.limit)


COMMANDS = {"level": _level, "cancel": _cancel, "gc": _gc, "set-limit": _set_limit}


def _act(options: argparse.Namespace, command: str, **arguments: Any) -> int:
    """Ask for an action and print what was done. Without the GIL it is not known whether it will be: a Failure."""
    answer = ask(options.pid, command, **arguments)
    if is_partial(answer):
        raise Failure(f"process {options.pid} has not confirmed it: {partial_reason(answer)}")
    if options.json:
        write_answer(answer)
    else:
        done = f"level {cells.text(answer['level'])}" if "level" in answer else cells.text(answer.get("done"))
        write_lines([f"process {options.pid}: {done}"])
    return 0
