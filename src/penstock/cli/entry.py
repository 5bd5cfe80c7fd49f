"""The entry point: selects the command and reports an error as one line, with exit code 2 for usage, else 1."""

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence

from penstock import __version__
from penstock.cli.frames import hide_penstock_frames
from penstock.cli.options import LineParser
from penstock.cli.output import Failure, write_error
from penstock.errors import ConfigError, PenstockError
from penstock.userframes import user_frames

__all__ = ["main"]

# commands to a running supervisor share a module, and so do those that change a running process, and lists of events
SUPERVISE = ("workers", "scale", "reload", "stop")
ACTIONS = ("level", "cancel", "gc", "set-limit")
EVENTS = ("findings", "cancellations")
SHARED = dict.fromkeys(SUPERVISE, "supervise") | dict.fromkeys(ACTIONS, "attached.actions")
SHARED |= dict.fromkeys(EVENTS, "attached.events")
# commands that attach to a running process
ATTACHED = ("ps", "top", "monitor", "tasks", "stacks", *EVENTS, "trace", "report")
COMMANDS = ("run", "serve", *SUPERVISE, *ATTACHED, *ACTIONS, "doctor")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code. Exceptions of the user's program propagate."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    hide_penstock_frames()
    command = "penstock"
    try:
        choice, rest = _choose(arguments)
        command = f"penstock {choice}"
        return _main_of(choice)(rest)
    except Failure as failure:
        return _complain(command, str(failure), failure.code)
    except PenstockError as error:
        if user_frames(error.__traceback__) is not None:
            raise
        return _complain(command, str(error), 2 if isinstance(error, ConfigError) else 1)


def _choose(arguments: list[str]) -> tuple[str, list[str]]:
    parser = LineParser(
        prog="penstock",
        usage="penstock COMMAND [options]",
        description="The asyncio runtime that Python services run on under load.",
        epilog="commands:\n"
        "  run, serve               run a program; serve an ASGI application\n"
        "  workers, scale, reload, stop\n"
        "                           show and change the workers of a running server\n"
        "  doctor                   report the machine, or what is wrong in a process\n"
        "  ps, top, monitor         list processes; watch one in a terminal or browser\n"
        "  tasks, stacks, findings, cancellations\n"
        "                           show a process's tasks, stacks and what happened\n"
        "  trace, report            record its steps for Perfetto; write one HTML file\n"
        "  level, cancel, gc, set-limit\n"
        "                           change what it records, a task, its garbage, a gate\n\n"
        "'penstock COMMAND --help' lists the options of a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"penstock {__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=argparse.SUPPRESS)
    choice: str = parser.parse_args(arguments[:1]).command
    return choice, arguments[1:]


def _main_of(choice: str) -> Callable[[Sequence[str]], int]:
    # Imported lazily: the imports of `serve` would slow the start of `run`.
    if choice in SHARED:
        main_of: Callable[[str], Callable[[Sequence[str]], int]]
        main_of = importlib.import_module(f"penstock.cli.{SHARED[choice]}").main_of
        return main_of(choice)
    folder = "attached." if choice in ATTACHED else ""
    main: Callable[[Sequence[str]], int] = importlib.import_module(f"penstock.cli.{folder}{choice}").main
    return main


def _complain(command: str, message: str, code: int) -> int:
    write_error(command, message)
    return code
