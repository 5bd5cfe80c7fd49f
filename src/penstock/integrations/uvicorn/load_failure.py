"""The failure of a worker's start in one line: why its application cannot be loaded, and where."""

from __future__ import annotations

from traceback import extract_tb, format_exception
from typing import TYPE_CHECKING

from penstock.integrations.uvicorn.lifespan import FAILED_START
from penstock.runtime.supervisor.worker.orders import PreloadError
from penstock.userframes import user_frames

if TYPE_CHECKING:
    from penstock.runtime.supervisor.worker.link import WorkerLink

__all__ = ["explain", "failed_preload", "report_failure"]

WRONG_USAGE = 2


def report_failure(link: WorkerLink, app: str, error: BaseException) -> int:
    """Report to the supervisor why the application cannot be loaded. Return the exit code of this process."""
    code, reason = explain(app, error)
    link.failed(reason, code, _details(error))
    return code


def failed_preload(app: str, error: BaseException) -> PreloadError:
    """Return the same report for a process from which workers are forked."""
    code, reason = explain(app, error)
    return PreloadError(reason, code, _details(error))


def _details(error: BaseException) -> str:
    """Return the traceback from the application's code on."""
    error.__traceback__ = user_frames(error.__traceback__) or error.__traceback__
    return "".join(format_exception(error))


def explain(app: str, error: BaseException) -> tuple[int, str]:
    """Return the exit code, and the reason in one line, of an application that cannot be loaded."""
    text, place = " ".join(str(error).split()), _place(error)
    if not place and isinstance(error, ValueError | ImportError | AttributeError | TypeError):
        # a mistake in the name of the application
        return WRONG_USAGE, text
    if isinstance(error, SystemExit) and error.code == FAILED_START:
        # uvicorn has logged its own exit
        return FAILED_START, f"cannot load {app}"
    if isinstance(error, SystemExit):
        return FAILED_START, f"cannot load {app}: it ends the process by SystemExit({error.code!r})"
    return FAILED_START, f"cannot load {app}: {type(error).__name__}: {text}{place}"


def _place(error: BaseException) -> str:
    """Return the innermost line of the traceback in the application's code; an empty text without such a line."""
    if isinstance(error, SyntaxError):
        return f" ({error.filename}:{error.lineno})"
    users = user_frames(error.__traceback__)
    if users is None:
        return ""
    frame = extract_tb(users)[-1]
    return f" ({frame.filename}:{frame.lineno} in {frame.name})"
