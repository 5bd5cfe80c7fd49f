"""The tie of a worker process to its supervisor: the kernel signals the worker at the supervisor's end.

With the native core the signal is SIGTERM. Before the worker has a handler, it ends the worker; later it begins a
drain, and the health sampler kills the worker some time after the lifeline has hung up. Without the core nothing would
end a worker whose code blocks, so there the signal is SIGKILL. The kernel signals a child alone, at the end of the
thread that started it: a worker that a template has forked has the lifeline only.
"""

from __future__ import annotations

import os
import select
import signal
import sys

from penstock.pidfd import open_pidfd

__all__ = ["end_at_parents_end", "lifeline", "signal_at_parents_end", "tie_to_parent"]

PR_SET_PDEATHSIG = 1


def tie_to_parent(parent_pid: int) -> None:
    """Have the kernel signal this process at the end of its parent. End the process if that has ended already.

    For the main thread, before anything else: imports may take long. Do nothing about signals where `parent_pid` is no
    parent of this process, and where the system is not Linux.
    """
    if os.getppid() == parent_pid:
        # until it is known whether the native core is there, which takes imports
        signal_at_parents_end(signal.SIGKILL)
        _end_without(parent_pid)
        if _has_native_core():
            signal_at_parents_end(signal.SIGTERM)
    _end_without(parent_pid)


def end_at_parents_end(parent_pid: int) -> None:
    """Have the kernel kill this process at the end of its parent, for a process that serves nobody. See above."""
    signal_at_parents_end(signal.SIGKILL)
    _end_without(parent_pid)


def lifeline(parent_pid: int) -> int:
    """Return a descriptor of the supervisor's process, which is readable from its end on; -1 if the system has none.

    End this process if the supervisor has ended already.
    """
    pidfd = open_pidfd(parent_pid)
    _end_without(parent_pid)
    return -1 if pidfd is None else pidfd


def _has_native_core() -> bool:
    from penstock.loop import NATIVE

    return NATIVE


def signal_at_parents_end(signum: int) -> None:
    """Have the kernel send this process a signal at its parent's end; 0 for none. A refusal is no error."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signum), *[ctypes.c_ulong(0)] * 3)


def _end_without(parent_pid: int) -> None:
    """End this process if it is no child of the supervisor, and the supervisor has ended."""
    if os.getppid() != parent_pid and _has_ended(parent_pid):
        os._exit(0)


def _has_ended(pid: int) -> bool:
    """Return whether the process has ended; it may not have been reaped yet."""
    pidfd = open_pidfd(pid)
    if pidfd is None:
        return not _exists(pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return bool(poll.poll(0))
    finally:
        os.close(pidfd)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
