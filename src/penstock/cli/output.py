"""Writes a command's output to readers that may have gone and files that may be full."""

import os
import signal
import sys
from contextlib import suppress
from typing import TextIO

__all__ = ["Failure", "complain", "write_out"]


class Failure(Exception):
    """Ends the command: one line for stderr and the exit code, 2 for wrong usage, 1 for the rest."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


def write_out(text: str) -> None:
    """Write to stdout, now. Where its reader has gone, end as SIGPIPE ends a process: exit code 141 and no word.

    Raises Failure for any other error.
    """
    if sys.stdout is None:
        return
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        _give_up(sys.stdout)
        if isinstance(error, BrokenPipeError):
            raise SystemExit(128 + signal.SIGPIPE) from None
        raise Failure(f"cannot write to stdout: {error.strerror or error}") from error


def complain(command: str, message: str) -> None:
    """Write one line to stderr, if that can be written to."""
    if sys.stderr is None:
        return
    try:
        print(f"{command}: {' '.join(message.split())}", file=sys.stderr, flush=True)
    except OSError:
        _give_up(sys.stderr)


def _give_up(stream: TextIO) -> None:
    """Discard the rest of the stream's buffer: the interpreter flushes it at the end, and would complain."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
