"""A check of the user's code in a forked process, so that the parent of the workers does not import it."""

import os
import sys
from collections.abc import Callable

__all__ = ["check_apart"]


def check_apart(check: Callable[[], object]) -> None:
    """Call `check` in a forked child, or in this process without `fork`.

    Raises SystemExit with the exit code of a child whose check failed; the child has written the error.
    """
    if not hasattr(os, "fork"):
        check()
        return
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        # an error propagates to the end of the command, which writes it
        check()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code:
        raise SystemExit(code if code > 0 else 128 - code)
