"""The attach socket of a process: its listener and its file in the user's runtime directory."""

from __future__ import annotations

import os
import socket
from contextlib import suppress

from penstock.runtime.socketfile import SocketFile
from penstock.runtime.supervisor.rundir import ATTACH_ENDING, FIRST_ENDING, make_directory, remove_dead

__all__ = ["AttachSocket"]

BACKLOG = 128


class AttachSocket:
    """The listener of this process, which does not block, and its file.

    `publish` gives the file its name, when clients can be served. Raises OSError, in one line, if it cannot be made.
    """

    def __init__(self, pid: int) -> None:
        self._folder = make_directory(os.environ)
        self._path, self._first_path = (str(self._folder / f"{pid}{each}") for each in (ATTACH_ENDING, FIRST_ENDING))
        self._file: SocketFile | None = None
        self.listener = socket.socket(socket.AF_UNIX)
        try:
            with suppress(FileNotFoundError):
                os.unlink(self._first_path)
            self.listener.bind(self._first_path)
            # the directory is private: no umask is needed, which all threads would share
            os.chmod(self._first_path, 0o600)
            self.listener.listen(BACKLOG)
            self.listener.setblocking(False)
            self._inode = os.fstat(self.listener.fileno()).st_ino
        except OSError as error:
            self.listener.close()
            reason = f"cannot make the attach socket {self._path}: {error.strerror or error}"
            raise OSError(error.errno, reason) from None

    def publish(self) -> None:
        """Give the file its name, in place of a dead process's file. A second call does nothing."""
        if self._file is None:
            os.rename(self._first_path, self._path)
            self._file = SocketFile.at(self._path)
            remove_dead(self._folder)

    def close(self) -> None:
        """Close the listener, and remove the file unless another process has made it anew."""
        self.close_listener()
        if self._file is not None:
            self._file.remove()
        else:
            with suppress(OSError):
                os.unlink(self._first_path)

    def close_listener(self) -> None:
        """Close the listener, unless the program has closed it and its number is another file's by now."""
        with suppress(OSError):
            if os.fstat(self.listener.fileno()).st_ino == self._inode:
                self.listener.close()
                return
        self.listener.detach()
