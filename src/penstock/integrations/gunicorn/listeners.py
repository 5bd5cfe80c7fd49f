"""The listeners of gunicorn's master: whether the workers of a master that stops are the last that answer on them.

The master closes its listeners when it stops, and keeps them when it replaces workers. Only in the first case may a
worker stop new connections in the kernel, which it does for every process. The kernel says what descriptors a process
has, as far as this user may read it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

__all__ = ["are_last"]

PROC = Path("/proc")


def are_last(sockets: Sequence[socket.socket], master: int) -> bool:
    """Return whether only workers of this master have the listeners. False if that is unknown."""
    names = {f"socket:[{os.fstat(sock.fileno()).st_ino}]" for sock in sockets}
    try:
        if names & _descriptors(PROC / str(master)):
            return False
    except OSError:
        return False
    own = {str(os.getpid()), str(master)}
    others = (folder for folder in PROC.iterdir() if folder.name.isdigit() and folder.name not in own)
    return not any(_has(folder, names) and not _is_worker(folder, master) for folder in others)


def _descriptors(process: Path) -> set[str]:
    found = set()
    for link in (process / "fd").iterdir():
        with suppress(OSError):
            found.add(os.readlink(link))
    return found


def _has(process: Path, names: set[str]) -> bool:
    try:
        return bool(names & _descriptors(process))
    except OSError:
        return False


def _is_worker(process: Path, master: int) -> bool:
    """Return whether it is a worker of this master, and not the next master that this one has started by SIGUSR2."""
    try:
        parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
        return parent == master and f"GUNICORN_PID={master}".encode() not in (process / "environ").read_bytes()
    except FileNotFoundError:
        return True
    except OSError:
        return False
