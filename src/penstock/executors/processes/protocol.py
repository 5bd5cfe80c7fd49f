"""What parent and worker write to each other: frames of a fixed head and a body, cut out of the stream one by one.

A job's body is its function, then its content; a result's is its content. Content is a table of the buffers beside the
pickle, the pickle, and those buffers for which shared memory had no room.
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
# body bytes, number, when it began and how long it ran in nanoseconds, buffers, status, whether it keeps its blocks
RESULT = Struct("<QQQQIBB")
# where a buffer is, how many bytes, what it becomes
BUFFER = Struct("<QQQ")
NO_ROOM = 2**64 - 1
# What a buffer becomes: the pickle itself, a bytes, a bytearray, what an object lent.
TEXT, BYTES, BYTEARRAY, LENT = range(4)
BYTES_LIKE = {BYTES: bytes, BYTEARRAY: bytearray}
# A job's flag. Without it, its pickle is the tuple of its arguments; with it, (function, arguments, keyword arguments,
# what the context carries).
WHOLE = 1
# ... and this one: its shared buffers are still being copied in, in the order of the table.
FILLING = 2


class Status(IntEnum):
    """What a worker's frame says."""

    READY = 0
    UNFIT = 1  # it cannot start
    RESULT = 2
    ERROR = 3
    INTERRUPTED = 4
    RELEASED = 5  # the blocks that a job kept are free


class Content(NamedTuple):
    """A `Pickled` ready to be sent: `buffer_count` entries begin `parts`; `blocks` are its places in shared memory."""

    parts: list[Any]
    buffer_count: int
    blocks: list[tuple[int, int]]
    inband_bytes: int
    shared_bytes: int


def lay_out(pickled: Pickled, take: Callable[[int], int | None], put: Callable[[int, Any], None]) -> Content:
    """Lay a pickle out: large buffers go where `take(size)` says, by `put(offset, data)`; else into the frame."""
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
    """What `pickling.load` takes."""

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
    """Content again. `view(offset, size)` gives a block that is copied at once, `lend(offset, size)` one to be kept."""
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
            # a buffer that an object keeps is its own, and may be written to
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
    """Cuts a stream into frames. `feed` gives each as its head's fields and where in which bytes its body is."""

    def __init__(self, head: Struct) -> None:
        self._head = head
        self._parts: list[bytes] = []
        self._have_bytes = 0
        self._need_bytes = head.size

    def feed(self, data: bytes) -> list[tuple[tuple[int, ...], bytes, int, int]]:
        """The frames that are whole now."""
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
