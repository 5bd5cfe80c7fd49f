"""Hides the traceback frames between the command line and the user's program.

It uses `sys.excepthook` and no handler: the exception propagates out of `main`, so exit codes, `atexit` and the end by
SIGINT are the interpreter's.
"""

import contextlib
import importlib
import os
import runpy
import sys
from types import CodeType, TracebackType

__all__ = ["hide_penstock_frames", "user_frames"]

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
MACHINERY = ("<frozen runpy>", "<frozen importlib", runpy.__file__, importlib.__file__, contextlib.__file__)


def user_frames(traceback: TracebackType | None) -> TracebackType | None:
    """Return the traceback from its first frame in the user's code on; None without such a frame."""
    while traceback is not None and _is_penstock(traceback.tb_frame.f_code):
        traceback = traceback.tb_next
    return traceback


def hide_penstock_frames() -> None:
    """Print uncaught exceptions from the first frame of the user's code on."""
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


# The calling file, known only at run time: the console script or `penstock/__main__.py`.
_launchers: set[str] = set()


def _is_penstock(code: CodeType) -> bool:
    name = code.co_filename
    return name.startswith(PACKAGE) or name in _launchers or name.startswith(MACHINERY)
