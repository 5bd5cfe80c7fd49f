"""The output of commands, also to a closed pipe or a full disk."""

import os
import signal
import sys
from contextlib import suppress
from typing import TextIO

__all__ = ["Failure", "write_error", "write_out"]


class Failure(Exception):
    """An error that ends the command: one line for stderr, and the exit code, 2 for usage, else 1."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


def write_out(text: str) -> None:
    """Write to stdout and flush it. A closed pipe ends the process silently with exit code 141, as SIGPIPE does.

    Raises Failure for any other error.
    """
    if sys.stdout is None:
        return
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        _discard_buffer(sys.stdout)
        if isinstance(error, BrokenPipeError):
            raise SystemExit(128 + signal.SIGPIPE) from None
        raise Failure(f"cannot write to stdout: {error.strerror or error}") from error


def write_error(command: str, message: str) -> None:
    """Write one line to stderr if possible."""
    if sys.stderr is None:
        return
    try:
        print(f"{command}: {' '.join(message.split())}", file=sys.stderr, flush=True)
    except OSError:
        _discard_buffer(sys.stderr)


def _discard_buffer(stream: TextIO) -> None:
    """Discard the buffer of a stream: the interpreter flushes it at its end and would report an error."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
