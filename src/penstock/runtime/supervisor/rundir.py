"""The private runtime directory of this user: `PID.sock` of each supervisor, `PID-attach.sock` of each process."""

from __future__ import annotations

import os
import stat
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.runtime.socketfile import remove_if_stale

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = [
    "ATTACH_ENDING",
    "FIRST_ENDING",
    "OVERRIDE",
    "attach_sockets",
    "control_sockets",
    "make_directory",
    "refused_directories",
    "remove_attach_socket",
    "remove_dead",
]

OVERRIDE = "PENSTOCK_RUNTIME_DIR"
# its owner and mode are checked
SHARED = "/tmp/penstock-{}"
# of sockaddr_un, without the zero at its end; and the longest name of a control socket
MOST_PATH_BYTES = 107
CONTROL_ENDING, ATTACH_ENDING = ".sock", "-attach.sock"
# until clients can be served
FIRST_ENDING = f"{ATTACH_ENDING}.new"
MOST_REMOVED = 100
MOST_DIGITS = len("4194304")
MOST_NAME = f"4194304{FIRST_ENDING}"


def make_directory(environ: Mapping[str, str]) -> Path:
    """Return the first directory that is private or can be made so.

    Raises OSError, whose text names the directory and the reason, if there is none.
    """
    *others, last = _candidates(environ)
    for folder in others:
        try:
            return _made(folder)
        except OSError:
            # the next one is this user's too
            continue
    return _made(last)


def control_sockets(environ: Mapping[str, str]) -> dict[int, Path]:
    """Return the control sockets of live supervisors by process number; the files of dead ones are removed."""
    return _live_sockets(environ, CONTROL_ENDING)


def attach_sockets(environ: Mapping[str, str]) -> dict[int, Path]:
    """Return the attach sockets of live processes by process number; the files of dead ones are removed."""
    return _live_sockets(environ, ATTACH_ENDING)


def remove_attach_socket(environ: Mapping[str, str], pid: int) -> None:
    """Remove the attach socket's file of a process that has ended: one that was killed leaves it."""
    for folder in _candidates(environ):
        if not _unsafe(folder):
            remove_if_stale(str(folder / f"{pid}{ATTACH_ENDING}"))


def remove_dead(folder: Path) -> None:
    """Remove the attach sockets of processes that have ended without doing it, at most 100 of them.

    Processes that are killed or call os._exit leave a file each; without this they would become ever more.
    """
    files = (file for ending in (ATTACH_ENDING, FIRST_ENDING) for file in _socket_files(folder, ending))
    # a process of another container has no number here: its socket answers, and stays
    for _, path in islice((file for file in files if not os.path.exists(f"/proc/{file[0]}")), MOST_REMOVED):
        remove_if_stale(str(path))


def _live_sockets(environ: Mapping[str, str], ending: str) -> dict[int, Path]:
    found: dict[int, Path] = {}
    for folder in _candidates(environ):
        for pid, path in _socket_files(folder, ending):
            if not remove_if_stale(str(path)):
                found.setdefault(pid, path)
    return dict(sorted(found.items()))


def refused_directories(environ: Mapping[str, str]) -> list[str]:
    """Return each directory that exists and is not private, with the reason: no control socket is read there."""
    found = [(folder, _unsafe(folder)) for folder in _candidates(environ) if os.path.lexists(folder)]
    return [f"{folder} {reason}" for folder, reason in found if reason]


def _candidates(environ: Mapping[str, str]) -> list[Path]:
    if environ.get(OVERRIDE):
        return [Path(environ[OVERRIDE])]
    shared = Path(SHARED.format(os.geteuid()))
    base = environ.get("XDG_RUNTIME_DIR", "")
    return [Path(base, "penstock"), shared] if os.path.isabs(base) else [shared]


def _made(folder: Path) -> Path:
    if len(os.fsencode(folder / MOST_NAME)) > MOST_PATH_BYTES:
        raise OSError(f"{folder}: the path of a control socket may have {MOST_PATH_BYTES} bytes; set {OVERRIDE}")
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise OSError(error.errno, f"cannot make {folder}: {error.strerror}") from None
    reason = _unsafe(folder)
    if reason:
        raise OSError(f"{folder} {reason}; change that, or set {OVERRIDE} to another directory")
    return folder


def _unsafe(folder: Path) -> str:
    """Return why a directory is not private to this user; an empty text if it is. Root looks into others' too."""
    try:
        found = folder.lstat()
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if not stat.S_ISDIR(found.st_mode):
        return "is not a directory"
    if found.st_uid != os.geteuid() and os.geteuid() != 0:
        return f"belongs to another user ({found.st_uid})"
    if stat.S_IMODE(found.st_mode) & 0o077:
        return f"is open to other users (mode {stat.S_IMODE(found.st_mode):o}, 700 is needed)"
    return ""


def _socket_files(folder: Path, ending: str) -> Iterator[tuple[int, Path]]:
    if _unsafe(folder):
        return
    for path in sorted(folder.glob(f"*{ending}")):
        number = path.name.removesuffix(ending)
        if number.isascii() and number.isdigit() and len(number) <= MOST_DIGITS:
            yield int(number), path
