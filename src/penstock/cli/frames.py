"""Hides the traceback frames between the command line and the user's program.

It uses `sys.excepthook` and no handler: the exception propagates out of `main`, so exit codes, `atexit` and the end by
SIGINT are the interpreter's.
"""

import sys
from types import TracebackType

from penstock.userframes import add_launcher, user_frames

__all__ = ["hide_penstock_frames"]


def hide_penstock_frames() -> None:
    """Print uncaught exceptions from the first frame of the user's code on."""
    former = sys.excepthook
    launcher = getattr(sys.modules.get("__main__"), "__file__", None)
    if launcher is not None:
        add_launcher(launcher)

    def show(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        users = user_frames(traceback)
        if users is not None or isinstance(error, SyntaxError):
            traceback = users
            error.__traceback__ = users
        former(kind, error, traceback)

    sys.excepthook = show
