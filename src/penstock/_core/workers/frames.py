# cython: annotation_typing=False, nonecheck=True
"""The frames between parent and worker: their heads, and the parser of a stream of them.

Native where it is built (`frames.pxd` has the types), this very source elsewhere. The body of a job is its function,
then its content. The body of a result is its content.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import Any

__all__ = ["FILLING", "JOB", "RESULT", "WHOLE", "FrameReader", "Status"]

# body bytes, number, function bytes, buffers, flags
JOB = Struct("<QQHII")
# body bytes, number, start and running time in ns, buffers, status, whether the job keeps its blocks
RESULT = Struct("<QQQQIBB")
# A flag of a job. With it the pickle is (function, arguments, keyword arguments, carried context), without it the tuple
# of the arguments.
WHOLE = 1
# A flag of a job: its shared buffers are still copied in, in the order of the table.
FILLING = 2


class Status(IntEnum):
    """The meaning of a worker's frame."""

    READY = 0
    UNFIT = 1  # it cannot start
    RESULT = 2
    ERROR = 3
    INTERRUPTED = 4
    RELEASED = 5  # the blocks that a job kept are free


class FrameReader:
    """A parser of a stream of frames. A frame is (fields of its head, data, start and end of its body in the data)."""

    def __init__(self, head: Struct) -> None:
        self._head = head
        self._size_bytes = head.size
        self._parts: list[bytes] = []
        self._have_bytes = 0
        # the size of the first incomplete frame, as far as it is known
        self.need_bytes = head.size

    def feed(self, data: bytes) -> list[tuple[tuple[int, ...], bytes, int, int]]:
        """Add data. Return the frames that are complete now."""
        if self._parts or len(data) < self.need_bytes:
            self._parts.append(data)
            self._have_bytes += len(data)
            if self._have_bytes < self.need_bytes:
                return []
            data = b"".join(self._parts)
            self._parts.clear()
            self._have_bytes = 0
        frames: list[Any] = []
        position = 0
        end, size = len(data), self._size_bytes
        self.need_bytes = size
        while end - position >= size:
            fields = self._head.unpack_from(data, position)
            after = position + size + fields[0]
            if after > end:
                self.need_bytes = size + fields[0]
                break
            frames.append((fields, data, position + size, after))
            position = after
        if position < end:
            self._parts.append(data[position:])
            self._have_bytes = end - position
        return frames
