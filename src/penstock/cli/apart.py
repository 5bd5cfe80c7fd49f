"""A check of the user's code in a process of its own, which keeps its imports out of the parent of the workers."""

import os
import sys
from collections.abc import Callable

__all__ = ["check_apart"]


def check_apart(check: Callable[[], object]) -> None:
    """Do the check in a copy of this process, which ends as its error would end this one. Here, where none can be made.

    Raises SystemExit with the copy's exit code, when it has told its error.
    """
    if not hasattr(os, "fork"):
        check()
        return
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        # an error passes from here to the end of the command, and is told there
        check()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code:
        raise SystemExit(code if code > 0 else 128 - code)
