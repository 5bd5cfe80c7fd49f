"""A worker's page of shared memory: the words by which its supervisor judges it, without a question to the worker.

Each word is eight bytes and means something on its own, so a reader needs no lock. Times are of the monotonic clock,
which all processes share.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from contextlib import suppress
from typing import NamedTuple

__all__ = ["DRAINING", "PAGE_BYTES", "SERVING", "STARTING", "HealthPage", "HealthReading", "new_memory", "rss_bytes"]

PAGE_BYTES = 4096
STARTING, SERVING, DRAINING = 1, 2, 3
# the positions of the words
STATE, WRITTEN, TURN_SINCE, CALLBACK_SINCE, TURN_NUMBER, REQUESTS, SERVED, CONNECTIONS = range(8)
OS_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


class HealthReading(NamedTuple):
    """The words at one moment; 0 for none. Times are in nanoseconds."""

    state: int
    # when the worker's writer last looked at its loop
    written_ns: int
    # since when the loop has been in its present turn, and in its present callback
    turn_since_ns: int
    callback_since_ns: int
    turn_number: int
    # in flight now; answered in all; open connections
    requests: int
    served: int
    connections: int


class HealthPage:
    """One worker's page, mapped by the worker and by its supervisor.

    Ownership: it owns the descriptor and the mapping until `close`.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.memory = mmap.mmap(fd, PAGE_BYTES)
        self._words = memoryview(self.memory).cast("q")

    @classmethod
    def create(cls) -> HealthPage:
        """Return the page of a new worker, which starts."""
        page = cls(new_memory("penstock-health", PAGE_BYTES))
        page.set_state(STARTING)
        return page

    def set_state(self, state: int) -> None:
        """Write the state: STARTING, SERVING or DRAINING."""
        self._words[STATE] = state

    def note_work(self, requests: int, served: int, connections: int) -> None:
        """Write the requests in flight, those answered since the start, and the open connections."""
        self._words[REQUESTS], self._words[SERVED], self._words[CONNECTIONS] = requests, served, connections

    def note_turn(self, now_ns: int, callback_since_ns: int) -> None:
        """Write the state of the loop as a Python thread knows it: a callback that has not ended, or 0."""
        self._words[CALLBACK_SINCE] = callback_since_ns
        self._words[WRITTEN] = now_ns

    def read(self) -> HealthReading:
        """Return the words."""
        return HealthReading(*self._words[:8])

    def close(self) -> None:
        """Unmap the page and close the descriptor. A second call does nothing."""
        if self.fd < 0:
            return
        self._words.release()
        # a writer of this process may hold the memory: it goes with the process
        with suppress(BufferError):
            self.memory.close()
        os.close(self.fd)
        self.fd = -1


def new_memory(name: str, size_bytes: int) -> int:
    """Return the descriptor of anonymous memory, which processes share that have it. Raises OSError."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create(name, os.MFD_CLOEXEC)
    else:
        fd, path = tempfile.mkstemp()
        os.unlink(path)
    os.ftruncate(fd, size_bytes)
    return fd


def rss_bytes(pid: int) -> int | None:
    """Return the resident memory of a process in bytes; None if it has ended, or where /proc is missing."""
    try:
        with open(f"/proc/{pid}/statm", "rb", buffering=0) as stream:
            return int(stream.read(256).split()[1]) * OS_PAGE_BYTES
    except (OSError, IndexError):
        return None
