"""Whose traceback it is: hides the frames between the command line and the user's program.

The trick is an excepthook rather than a handler: the exception leaves `main` as it is, so exit codes, `atexit` and the
death by SIGINT stay the interpreter's own.
"""

import contextlib
import importlib
import os
import runpy
import sys
from types import CodeType, TracebackType

__all__ = ["hide_our_frames", "user_frames"]

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
MACHINERY = ("<frozen runpy>", "<frozen importlib", runpy.__file__, importlib.__file__, contextlib.__file__)


def user_frames(traceback: TracebackType | None) -> TracebackType | None:
    """The part of a traceback that starts in the user's code; None if it never gets there."""
    while traceback is not None and _is_ours(traceback.tb_frame.f_code):
        traceback = traceback.tb_next
    return traceback


def hide_our_frames() -> None:
    """From here on an uncaught exception is printed from the user's first frame on."""
    former = sys.excepthook
    launcher = getattr(sys.modules.get("__main__"), "__file__", None)
    if launcher is not None:
        _launchers.add(launcher)

    def show(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        users = user_frames(traceback)
        if users is not None or isinstance(error, SyntaxError):
            traceback = users
            error.__traceback__ = users
        former(kind, error, traceback)

    sys.excepthook = show


# The console script, or `penstock/__main__.py`: the file that called us, known only once we run.
_launchers: set[str] = set()


def _is_ours(code: CodeType) -> bool:
    name = code.co_filename
    return name.startswith(PACKAGE) or name in _launchers or name.startswith(MACHINERY)
