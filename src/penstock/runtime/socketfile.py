"""The file of a Unix socket: bound with its mode and owner, a stale one replaced, removed by its own server only."""

from __future__ import annotations

import errno
import fcntl
import grp
import os
import pwd
import socket
import stat
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["DEFAULT_MODE", "SocketFile", "bind_file", "parse_owner", "remove_if_stale"]

# as uvicorn: the directory decides which users may connect
DEFAULT_MODE = 0o666
# the longest wait for another server that binds a file in the same directory
LOCK_WITHIN_S = 1.0
LOCK_EVERY_S = 0.01
UNCHANGED = -1


@dataclass(frozen=True, slots=True)
class SocketFile:
    """The file of a bound Unix socket, by its path, the numbers of its inode and the time of its making."""

    path: str
    device: int
    inode: int
    # a file system may give the number of a removed file to the next one
    made_ns: int

    @classmethod
    def of(cls, listener: socket.socket) -> Self | None:
        """Return the file that this socket was bound to; None without one at its path."""
        name = listener.getsockname() if listener.family == socket.AF_UNIX else b""
        if not isinstance(name, str) or not name:
            return None
        with suppress(FileNotFoundError):
            return cls.at(name)
        return None

    @classmethod
    def at(cls, path: str) -> Self:
        """Return the file that is at this path now. Raises OSError without one."""
        found = os.lstat(path)
        return cls(os.path.abspath(path), found.st_dev, found.st_ino, found.st_mtime_ns)

    def is_own(self) -> bool:
        """Return whether the path still names this file, and not that of a later server."""
        with suppress(OSError):
            found = os.lstat(self.path)
            return (found.st_dev, found.st_ino, found.st_mtime_ns) == (self.device, self.inode, self.made_ns)
        return False

    def remove(self) -> None:
        """Remove the file unless another server has bound the path since."""
        if self.is_own():
            with suppress(OSError):
                os.unlink(self.path)


def parse_owner(text: str) -> tuple[int, int]:
    """Return user and group numbers of `USER`, `USER:GROUP` or `:GROUP`, by names or numbers; -1 for one not given.

    Raises ValueError for a name that does not exist.
    """
    user, colon, group = text.partition(":")
    if (not user and not group) or (colon and not group):
        raise ValueError(f"{text!r} is not an owner: USER, USER:GROUP or :GROUP")
    return _user_number(user), _group_number(group)


def _user_number(name: str) -> int:
    with suppress(KeyError):
        return _number(name) if not name or _is_number(name) else pwd.getpwnam(name).pw_uid
    raise ValueError(f"there is no user {name!r} on this machine")


def _group_number(name: str) -> int:
    with suppress(KeyError):
        return _number(name) if not name or _is_number(name) else grp.getgrnam(name).gr_gid
    raise ValueError(f"there is no group {name!r} on this machine")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _number(text: str) -> int:
    # the largest number of 32 bits means "unchanged" to the kernel
    if text and int(text) >= 2**32 - 1:
        raise ValueError(f"{text} is not a user or group number: 0 to {2**32 - 2}")
    return int(text) if text else UNCHANGED


def bind_file(listener: socket.socket, path: str, mode: int = DEFAULT_MODE, owner: str | None = None) -> None:
    """Bind and listen at a path, in place of a file that no server answers on.

    The file never has wider permissions than `mode`, nor its owner's before it is his. Raises OSError, whose text names
    the reason, and ValueError for an unknown owner.
    """
    user, group = (UNCHANGED, UNCHANGED) if owner is None else parse_owner(owner)
    with _directory_lock(path):
        _remove_stale(path)
        # until the group is the right one, the wrong one has no permission
        _bind_narrow(listener, path, mode if owner is None else mode & ~0o070)
        made = SocketFile.of(listener)
        try:
            if owner is not None:
                _give(path, mode, user, group)
            # at once: a socket file without a listener counts as stale
            listener.listen()
        except OSError:
            if made is not None:
                made.remove()
            raise


def remove_if_stale(path: str) -> bool:
    """Remove a socket's file that no server answers on. Return True if there is no file afterwards."""
    try:
        with _directory_lock(path):
            _remove_stale(path)
    except OSError:
        return False
    return True


def _bind_narrow(listener: socket.socket, path: str, mode: int) -> None:
    # the kernel takes the umask at the bind: a chmod afterwards would leave a moment with wider permissions
    before = os.umask(~mode & 0o777)
    try:
        listener.bind(path)
    finally:
        os.umask(before)


def _give(path: str, mode: int, user: int, group: int) -> None:
    """Set the group, then the mode, then the user: a later owner could put a link in the file's place."""
    try:
        os.chown(path, UNCHANGED, group, follow_symlinks=False)
        os.chmod(path, mode)
        os.chown(path, user, UNCHANGED, follow_symlinks=False)
    except PermissionError as error:
        reason = "only root may give a file to another user, or to a group that this user is not in"
        raise OSError(error.errno, f"{os.strerror(errno.EPERM)}; {reason}") from None


@contextmanager
def _directory_lock(path: str) -> Iterator[None]:
    """Hold the directory's lock for the block: two servers that start at once do not remove each other's file.

    A lock that cannot be had in time is gone without: any user who may read the directory can take it.
    """
    try:
        fd = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        # the bind tells the reason
        yield
        return
    try:
        _lock(fd)
        yield
    finally:
        os.close(fd)


def _lock(fd: int) -> None:
    until_s = time.monotonic() + LOCK_WITHIN_S
    while time.monotonic() < until_s:
        try:
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(LOCK_EVERY_S)
        except OSError:
            return None


def _remove_stale(path: str) -> None:
    # A socket file outlives its server; it can be removed if no server accepts there.
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise FileExistsError(errno.EEXIST, "a file is there that is not a socket; remove it or choose another path")
    if _is_served(path):
        reason = f"{os.strerror(errno.EADDRINUSE)}; a server answers there: stop it or choose another path"
        raise OSError(errno.EADDRINUSE, reason)
    try:
        os.unlink(path)
    except PermissionError as error:
        owner = "another user" if found.st_uid != os.geteuid() else "a server that has ended"
        reason = f"{error.strerror}; the socket file of {owner} is there (user {found.st_uid})"
        raise OSError(error.errno, f"{reason}, and may not be removed") from None


def _is_served(path: str) -> bool:
    """Return whether a server listens at the path. Raises OSError if that cannot be known."""
    with socket.socket(socket.AF_UNIX) as probe:
        # a full backlog would block the connect
        probe.setblocking(False)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except BlockingIOError:
            return True
        except PermissionError as error:
            reason = f"{error.strerror}; the socket file of another user is there"
            raise OSError(error.errno, reason) from None
        except OSError as error:
            # a socket of another kind, such as a datagram socket, is bound there
            if error.errno != errno.EPROTOTYPE:
                raise
    return True
