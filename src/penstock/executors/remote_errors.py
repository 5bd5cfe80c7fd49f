"""How an exception comes back from a worker: itself, its notes, and the text of its traceback there."""

from __future__ import annotations

import pickle
import traceback
from typing import TypeVar

from penstock.errors import RemoteError

__all__ = ["RemoteTraceback", "describe_error", "rebuild_error", "without_frames"]

T = TypeVar("T", bound=BaseException)

# These end a program when they reach its loop; a job's own must not end the service.
EXITS = (SystemExit, KeyboardInterrupt, GeneratorExit)


class RemoteTraceback(Exception):
    """The cause of an exception that a job raised: where in the worker it came from, as text."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"in the worker:\n\n{self.text}"


def describe_error(problem: BaseException) -> tuple[BaseException, str]:
    """Worker: the exception as it can travel, and its traceback."""
    text = "".join(traceback.format_exception(problem))
    if isinstance(problem, EXITS) or not _travels(problem):
        kind = type(problem)
        return RemoteError(f"{kind.__module__}.{kind.__qualname__}", _message(problem), text), text
    return problem, text


def _travels(problem: BaseException) -> bool:
    """Whether the other side gets this exception: some pickle, and then cannot be made again from their arguments."""
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
    """Parent: the exception with its remote traceback as its cause; None if it is not a remote one."""
    if text is not None:
        problem.__cause__ = RemoteTraceback(text)
    return problem


def without_frames(problem: T) -> T:
    """Turn the tracebacks of an exception and of its causes into text, a note. Their frames hold the job that gets the
    exception: its arguments would stay until the garbage collector comes."""
    problem.add_note("".join(traceback.format_tb(problem.__traceback__)).rstrip())
    found: BaseException | None = problem
    while found is not None and found.__traceback__ is not None:
        found.__traceback__ = None
        found = found.__cause__ or found.__context__
    return problem
