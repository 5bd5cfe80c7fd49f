"""`penstock run`: a script or a module, unchanged, with penstock's loop behind every `asyncio.run`.

It installs the policy and makes the config the default of the process. The program then runs as under `python`:
`__main__`, `sys.argv`, `sys.path[0]`, exit code and traceback are the same.
"""

import argparse
import os
import runpy
import sys
import zipfile
from collections.abc import Sequence

import penstock
from penstock.cli.options import (
    Failure,
    LineParser,
    add_log_format,
    add_monitor_option,
    check_config,
    check_log_options,
    load_config,
    page_beside,
    seconds_or_0,
    with_monitor,
    with_signals,
)
from penstock.cli.otherloops import noticing_other_loops
from penstock.config.choice import chosen
from penstock.logformats import configure_by_file, json_line
from penstock.runtime.deadline import format_lines_by
from penstock.tasks.finding_fields import show_records
from penstock.userframes import user_frames

__all__ = ["main"]

TAKES_A_VALUE = {"--config", "--set", "--drain", "--log-format", "--log-config", "--monitor"}


def main(arguments: Sequence[str]) -> int:
    """Run the program that the arguments name. Return 0 when it ends by itself."""
    own, program, is_module = split_program(list(arguments))
    options = _parser().parse_args(own)
    if not program:
        raise Failure("name a script or -m module to run (see 'penstock run --help')", code=2)
    if not is_module and not os.path.exists(program[0]):
        raise Failure(f"no script at {program[0]!r}", code=2)
    config = with_monitor(with_signals(load_config(options), options.drain), options.monitor)
    sys.argv[:] = program
    _set_first_path(program[0], is_module)
    check_config(config)
    penstock.install(config)
    _set_up_logging(options)
    with page_beside(config), chosen(config), noticing_other_loops("penstock run"):
        _run(program[0], is_module)
    return 0


def _set_up_logging(options: argparse.Namespace) -> None:
    check_log_options(options)
    if options.log_config is None:
        show_records(style=options.log_format or "text")
        if options.log_format == "json":
            format_lines_by(json_line)
        return
    try:
        configure_by_file(options.log_config)
    except ValueError as error:
        raise Failure(f"--log-config: {error}", code=2) from error


def split_program(arguments: list[str]) -> tuple[list[str], list[str], bool]:
    """Return penstock's arguments, the program with its arguments, and True if the program is a module.

    argparse would take the options of the program for penstock's.
    """
    at = 0
    while at < len(arguments):
        word = arguments[at]
        if word == "-m":
            return arguments[:at], arguments[at + 1 :], True
        if word == "--":
            return arguments[:at], arguments[at + 1 :], False
        if not word.startswith("-") or word == "-":
            return arguments[:at], arguments[at:], False
        at += 2 if word in TAKES_A_VALUE else 1
    return arguments, [], False


def _parser() -> LineParser:
    parser = LineParser(
        prog="penstock run",
        usage="penstock run [options] (script.py | -m module) [arguments]",
        description="Run a program that calls asyncio.run, unchanged, on penstock's event loop.",
        epilog="Arguments after the script or module go to the program.",
    )
    parser.add_argument("-m", metavar="MODULE", help="run a module, as python -m does")
    parser.add_argument(
        "--drain", type=seconds_or_0, metavar="SECONDS", help="drain on SIGTERM and SIGINT; signals.drain_s"
    )
    add_monitor_option(parser)
    add_log_format(parser)
    parser.add_argument("--log-config", metavar="FILE", help="set up logging by a file: .json, .yaml, or .ini")
    parser.add_config_options()
    return parser


def _set_first_path(program: str, is_module: bool) -> None:
    # The script `penstock` has put its directory first, `python -m penstock` the current one.
    if sys.flags.safe_path:
        return
    if is_module:
        sys.path[:1] = [os.getcwd()]
    elif os.path.isdir(program) or zipfile.is_zipfile(program):
        sys.path[:1] = []  # runpy puts a directory or an archive there itself
    else:
        sys.path[:1] = [os.path.dirname(os.path.realpath(program))]


def _run(program: str, is_module: bool) -> None:
    try:
        if is_module:
            runpy.run_module(program, run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(program, run_name="__main__")
    except (OSError, ImportError) as error:
        if user_frames(error.__traceback__) is not None:
            raise
        raise Failure(f"cannot run {program!r}: {error}") from error
