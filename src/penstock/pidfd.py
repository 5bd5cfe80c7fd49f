"""Descriptors of processes: they become readable at the end of their process, and never mean another one."""

from __future__ import annotations

import os

__all__ = ["open_pidfd", "open_pidfd_of_child"]


def open_pidfd(pid: int) -> int | None:
    """Return a descriptor of the process; None if the system has none, or the process has ended."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


def open_pidfd_of_child(pid: int) -> int | None:
    """Return a descriptor by which this process can reap its child; None if there is no such descriptor or child."""
    pidfd = open_pidfd(pid)
    if pidfd is None:
        return None
    try:
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except (AttributeError, OSError):
        # an old kernel, or a child that was reaped already: its number may be that of another process
        os.close(pidfd)
        return None
    return pidfd
