"""Exceptions of workers: the exception itself, its notes, and the text of its traceback."""

from __future__ import annotations

import pickle
import traceback
from typing import TypeVar

from penstock.errors import RemoteError

__all__ = ["RemoteTraceback", "describe_error", "rebuild_error", "without_frames"]

T = TypeVar("T", bound=BaseException)

# These end a program when they reach its loop. A job must not end the program.
EXITS = (SystemExit, KeyboardInterrupt, GeneratorExit)


class RemoteTraceback(Exception):
    """The cause of a job's exception: its traceback in the worker, as text."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"in the worker:\n\n{self.text}"


def describe_error(problem: BaseException) -> tuple[BaseException, str]:
    """Return the exception in a form that can be pickled, and the text of its traceback. For the worker."""
    text = "".join(traceback.format_exception(problem))
    if isinstance(problem, EXITS) or not _travels(problem):
        kind = type(problem)
        return RemoteError(f"{kind.__module__}.{kind.__qualname__}", _message(problem), text), text
    return problem, text


def _travels(problem: BaseException) -> bool:
    """Return whether the exception can be pickled and loaded again: some cannot be made from their arguments."""
    try:
        return type(pickle.loads(pickle.dumps(problem, 5))) is type(problem)
    except Exception:
        return False


def _message(problem: BaseException) -> str:
    try:
        return str(problem)
    except Exception:
        return "(its text cannot be made)"


def rebuild_error(problem: BaseException, text: str | None) -> BaseException:
    """Return the exception with its remote traceback as its cause; `text` is None without one. For the parent."""
    if text is not None:
        problem.__cause__ = RemoteTraceback(text)
    return problem


def without_frames(problem: T) -> T:
    """Convert the tracebacks of an exception and of its causes to text, in a note. Their frames hold the job, and the
    job holds the exception: its arguments would stay until the garbage collector runs."""
    problem.add_note("".join(traceback.format_tb(problem.__traceback__)).rstrip())
    found: BaseException | None = problem
    while found is not None and found.__traceback__ is not None:
        found.__traceback__ = None
        found = found.__cause__ or found.__context__
    return problem
