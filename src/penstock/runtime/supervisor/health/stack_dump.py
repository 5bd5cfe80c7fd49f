"""Stacks of a worker's threads for its supervisor: written by a signal's C handler, which needs no GIL.

The worker registers `faulthandler` for a real-time signal; its file is memory that both processes have open.
"""

from __future__ import annotations

import faulthandler
import os
import signal
from contextlib import suppress

from penstock.runtime.supervisor.health.page import new_memory

__all__ = ["STACK_SIGNAL", "StackFile", "install_stack_dump"]

# nothing else in the package uses it
STACK_SIGNAL: int = getattr(signal, "SIGRTMIN", signal.SIGUSR1) + (5 if hasattr(signal, "SIGRTMIN") else 0)
MAX_STACK_BYTES = 8192


def install_stack_dump(fd: int) -> None:
    """Write the stacks of all threads to this descriptor at each `STACK_SIGNAL`, also while C code holds the GIL."""
    faulthandler.register(STACK_SIGNAL, file=fd, all_threads=True, chain=False)


class StackFile:
    """The file of one worker's stacks, in the supervisor. Ownership: it owns the descriptor until `close`."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def create(cls) -> StackFile:
        """Return the file of a new worker."""
        return cls(new_memory("penstock-stack", 0))

    def ask(self, pid: int) -> None:
        """Ask the process for its stacks; `take` returns them a moment later."""
        with suppress(OSError):
            # both processes share the position in the file
            os.ftruncate(self.fd, 0)
            os.lseek(self.fd, 0, os.SEEK_SET)
        with suppress(ProcessLookupError):
            os.kill(pid, STACK_SIGNAL)

    def take(self) -> str:
        """Return the stacks that the process has written since it was asked; an empty text if it has not.

        At most 8192 bytes, from the end: there `faulthandler` writes the main thread, after all others.
        """
        try:
            skipped_bytes = max(0, os.fstat(self.fd).st_size - MAX_STACK_BYTES)
            text = os.pread(self.fd, MAX_STACK_BYTES, skipped_bytes).decode(errors="replace")
        except OSError:
            return ""
        # from the next whole thread on, if there is one
        return text.partition("\n\n")[2] or text if skipped_bytes else text

    def close(self) -> None:
        """Close the descriptor. A second call does nothing."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
