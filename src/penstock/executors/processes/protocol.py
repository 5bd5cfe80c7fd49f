"""The protocol between parent and worker: frames with a fixed head and a body.

The body of a job is its function, then its content. The body of a result is its content. Content is a table of the
buffers outside the pickle, the pickle, and the buffers for which shared memory had no room.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import TYPE_CHECKING, Any, NamedTuple

from penstock.executors.processes.pickling import LARGE_BYTES, Pickled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["FILLING", "JOB", "RESULT", "WHOLE", "Content", "FrameReader", "Status", "lay_out", "unpack"]

# body bytes, number, function bytes, buffers, flags
JOB = Struct("<QQHII")
# body bytes, number, start and running time in ns, buffers, status, whether the job keeps its blocks
RESULT = Struct("<QQQQIBB")
# offset of a buffer, its size in bytes, its kind
BUFFER = Struct("<QQQ")
NO_ROOM = 2**64 - 1
# The kinds of buffers: the pickle itself, a bytes, a bytearray, a buffer that an object exports.
TEXT, BYTES, BYTEARRAY, LENT = range(4)
BYTES_LIKE = {BYTES: bytes, BYTEARRAY: bytearray}
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


class Content(NamedTuple):
    """A `Pickled` ready to be sent. `parts` begin with a table of `buffer_count` entries; `blocks` are in shared
    memory."""

    parts: list[Any]
    buffer_count: int
    blocks: list[tuple[int, int]]
    inband_bytes: int
    shared_bytes: int


def lay_out(pickled: Pickled, take: Callable[[int], int | None], put: Callable[[int, Any], None]) -> Content:
    """Lay out a pickle. `take(size)` allocates shared memory for a large buffer and `put(offset, data)` copies it
    there; without room the buffer goes into the frame."""
    text = pickled.text
    if pickled.is_small:
        return Content([text], 0, [], len(text), 0)
    table, inband, blocks, shared_bytes = bytearray(), [], [], 0
    for kind, data in _buffers(pickled):
        size = len(data)
        offset = take(size)
        if offset is None:
            offset = NO_ROOM
            inband.append(data)
        else:
            put(offset, data)
            blocks.append((offset, size))
            shared_bytes += size
        table += BUFFER.pack(offset, size, kind)
    if len(text) < LARGE_BYTES:
        inband.insert(0, text)
    return Content([bytes(table), *inband], len(table) // BUFFER.size, blocks, sum(map(len, inband)), shared_bytes)


def _buffers(pickled: Pickled) -> Iterator[tuple[int, Any]]:
    for item in pickled.bytes_like:
        yield (BYTES if type(item) is bytes else BYTEARRAY), item
    for view in pickled.lent:
        yield LENT, view
    if len(pickled.text) >= LARGE_BYTES:
        yield TEXT, pickled.text


class Unpacked(NamedTuple):
    """The arguments of `pickling.load`."""

    text: Any
    bytes_like: list[tuple[type, Any]]
    lent: list[Any]


def unpack(
    data: bytes,
    start: int,
    end: int,
    buffer_count: int,
    view: Callable[[int, int], Any],
    lend: Callable[[int, int], Any],
) -> Unpacked:
    """Read content. `view(offset, size)` returns a block to copy at once, `lend(offset, size)` a block to keep."""
    if not buffer_count:
        return Unpacked(data[start:end], [], [])
    entries = [BUFFER.unpack_from(data, start + index * BUFFER.size) for index in range(buffer_count)]
    left: Any = memoryview(data)[start + buffer_count * BUFFER.size : end]
    inband_bytes = sum(size for offset, size, _ in entries if offset == NO_ROOM)
    text: Any = left[: len(left) - inband_bytes]
    left = left[len(left) - inband_bytes :]
    bytes_like: list[tuple[type, Any]] = []
    lent: list[Any] = []
    for offset, size, kind in entries:
        if offset == NO_ROOM:
            block, left = left[:size], left[size:]
            # an object owns the buffer that it keeps, and may write to it
            block = bytearray(block) if kind == LENT else block
        else:
            block = lend(offset, size) if kind == LENT else view(offset, size)
        if kind == TEXT:
            text = block
        elif kind == LENT:
            lent.append(block)
        else:
            bytes_like.append((BYTES_LIKE[kind], block))
    return Unpacked(text, bytes_like, lent)


class FrameReader:
    """A parser of a stream of frames. A frame is (fields of its head, data, start and end of its body in the data)."""

    def __init__(self, head: Struct) -> None:
        self._head = head
        self._parts: list[bytes] = []
        self._have_bytes = 0
        self._need_bytes = head.size

    def feed(self, data: bytes) -> list[tuple[tuple[int, ...], bytes, int, int]]:
        """Add data. Return the frames that are complete now."""
        if self._parts or len(data) < self._need_bytes:
            self._parts.append(data)
            self._have_bytes += len(data)
            if self._have_bytes < self._need_bytes:
                return []
            data = b"".join(self._parts)
            self._parts.clear()
            self._have_bytes = 0
        frames, position = [], 0
        head, end, size = self._head, len(data), self._head.size
        self._need_bytes = size
        while end - position >= size:
            fields = head.unpack_from(data, position)
            after = position + size + fields[0]
            if after > end:
                self._need_bytes = size + fields[0]
                break
            frames.append((fields, data, position + size, after))
            position = after
        if position < end:
            self._parts.append(data[position:])
            self._have_bytes = end - position
        return frames
