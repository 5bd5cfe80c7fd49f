"""Shared memory between a parent and one worker: the table of claims, then an area for each direction.

The memory is anonymous (memfd): it has no name that could be left behind, and the kernel frees it with the last of the
two processes. Pages cost nothing until they are touched. Low addresses are used first, so that few pages are touched.

Ownership: an arena owns its mapping. The descriptor belongs to the caller, and may be closed after the mapping.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref
from bisect import insort
from typing import Any

from penstock.executors.processes.claims import ClaimTable

__all__ = ["Arena", "Extents", "LentBlocks", "new_memory"]

# The table of claims has the first page.
HEAD_BYTES = 4096
# Blocks begin on their own cache line.
ALIGN = 64


def new_memory(arena_bytes: int) -> int:
    """Return a descriptor of anonymous shared memory for a table of claims and areas of `arena_bytes` together."""
    size = HEAD_BYTES + arena_bytes // 2 // HEAD_BYTES * HEAD_BYTES * 2
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("penstock", os.MFD_CLOEXEC)
    else:
        import tempfile

        with tempfile.TemporaryFile() as unnamed:
            fd = os.dup(unnamed.fileno())
    try:
        os.ftruncate(fd, size)
    except BaseException:
        os.close(fd)
        raise
    return fd


class Arena:
    """The mapping of one side: `claims`, and the two areas as (first, end) offsets, to the worker and from it."""

    def __init__(self, fd: int) -> None:
        size = os.fstat(fd).st_size
        self._memory = mmap.mmap(fd, size)
        self._view = memoryview(self._memory)
        middle = HEAD_BYTES + (size - HEAD_BYTES) // 2
        self.to_worker = (HEAD_BYTES, middle)
        self.from_worker = (middle, size)
        self.claims = ClaimTable(self._memory)

    def put(self, offset: int, data: Any) -> None:
        """Copy a buffer to `offset`."""
        self._view[offset : offset + len(data)] = data

    def view(self, offset: int, size: int) -> memoryview:
        """Return a view of a block, which the caller must copy at once."""
        return self._view[offset : offset + size]

    def lend(self, offset: int, size: int) -> Any:
        """Return a block as an object with weak references: see `LentBlocks`."""
        return (ctypes.c_char * size).from_buffer(self._memory, offset)

    def trim(self) -> None:
        """Return the pages of both areas, which are empty, to the system."""
        if hasattr(mmap, "MADV_REMOVE"):
            try:
                self._memory.madvise(mmap.MADV_REMOVE, HEAD_BYTES, len(self._memory) - HEAD_BYTES)
            except OSError:
                pass  # not that kind of memory: it stays

    def close(self) -> None:
        """Unmap the memory. Blocks that are still lent keep the mapping."""
        self.claims.release()
        self._view.release()
        try:
            self._memory.close()
        except BufferError:
            pass


class Extents:
    """The free extents of an area, allocated by first fit from the lowest address."""

    def __init__(self, first: int, end: int) -> None:
        self._holes = [(first, end - first)] if end > first else []
        self.taken_bytes = 0

    def take(self, size: int) -> int | None:
        """Allocate a block of `size` bytes. Return its offset, None if there is no room."""
        size = _rounded(size)
        for index, (offset, room) in enumerate(self._holes):
            if room >= size:
                if room == size:
                    del self._holes[index]
                else:
                    self._holes[index] = (offset + size, room - size)
                self.taken_bytes += size
                return offset
        return None

    def free(self, offset: int, size: int) -> None:
        """Free a block of `take`, and merge it with its free neighbours."""
        size = _rounded(size)
        self.taken_bytes -= size
        insort(self._holes, (offset, size))
        index = self._holes.index((offset, size))
        for left in (index, index - 1):
            if 0 <= left < len(self._holes) - 1:
                (first, room), (second, more) = self._holes[left : left + 2]
                if first + room == second:
                    self._holes[left : left + 2] = [(first, room + more)]


def _rounded(size: int) -> int:
    return (size + ALIGN - 1) // ALIGN * ALIGN


class LentBlocks:
    """The blocks that a job was lent. After the job `are_kept` returns whether a block is still referenced."""

    def __init__(self) -> None:
        self._left = 0
        self._when_free: Any = None
        self._watches: list[weakref.ref[Any]] = []

    def add(self, block: Any) -> Any:
        """Add a block, and return it."""
        self._left += 1
        self._watches.append(weakref.ref(block, self._remove_ended))
        return block

    def _remove_ended(self, _: Any) -> None:
        self._left -= 1
        if self._left == 0 and self._when_free is not None:
            self._when_free()

    def are_kept(self, when_free: Any) -> bool:
        """Return whether a block is still referenced. If so, `when_free()` is called later, at any moment."""
        if self._left == 0:
            return False
        self._when_free = when_free
        return True
