"""`penstock run`: a script or a module, unchanged, with penstock's loop behind every `asyncio.run`.

Only the policy is installed; the program then runs as `python` would run it: `__main__`, `sys.argv`, `sys.path[0]`,
exit code and traceback are its own.
"""

import os
import runpy
import sys
import zipfile
from collections.abc import Sequence

import penstock
from penstock.cli.frames import user_frames
from penstock.cli.options import Failure, LineParser, load_config

__all__ = ["main"]

TAKES_A_VALUE = {"--config", "--set"}


def main(arguments: Sequence[str]) -> int:
    """Run the program named by the arguments; returns 0 when it ends by itself."""
    ours, program, is_module = split_program(list(arguments))
    options = _parser().parse_args(ours)
    if not program:
        raise Failure("name a script or -m module to run (see 'penstock run --help')", code=2)
    penstock.install(load_config(options))
    if is_module:
        _run_module(program)
    else:
        _run_script(program)
    return 0


def split_program(arguments: list[str]) -> tuple[list[str], list[str], bool]:
    """Divide the arguments into ours, the program with its own, and whether the program is a module.

    By hand, since argparse would take the program's options for ours.
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
        epilog="What follows the script or module goes to the program.",
    )
    parser.add_argument("-m", metavar="MODULE", help="run a module, as python -m does")
    parser.add_config_options()
    return parser


def _run_script(program: list[str]) -> None:
    script = program[0]
    if not os.path.exists(script):
        raise Failure(f"no script at {script!r}", code=2)
    sys.argv[:] = program
    # runpy puts a directory or an archive on the path itself; for a script it leaves that to us.
    if os.path.isdir(script) or zipfile.is_zipfile(script):
        _replace_first_path()
    else:
        _replace_first_path(os.path.dirname(os.path.realpath(script)))
    try:
        runpy.run_path(script, run_name="__main__")
    except (OSError, ImportError) as error:
        _fail_unless_users(error, f"cannot run {script!r}")


def _run_module(program: list[str]) -> None:
    sys.argv[:] = program
    _replace_first_path(os.getcwd())
    try:
        runpy.run_module(program[0], run_name="__main__", alter_sys=True)
    except (OSError, ImportError) as error:
        _fail_unless_users(error, f"cannot run module {program[0]!r}")


def _replace_first_path(*directory: str) -> None:
    # `penstock` the script has put its own directory first, `python -m penstock` the current one.
    if not sys.flags.safe_path:
        sys.path[:1] = directory


def _fail_unless_users(error: Exception, what: str) -> None:
    if user_frames(error.__traceback__) is not None:
        raise error
    raise Failure(f"{what}: {error}") from error
