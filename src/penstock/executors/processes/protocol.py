"""The protocol between parent and worker: frames with a fixed head and a body.

The body of a job is its function, then its content. The body of a result is its content. Content is a table of the
buffers outside the pickle, the pickle, and the buffers for which shared memory had no room.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Any, NamedTuple

from penstock.core_source import chosen
from penstock.executors.processes.pickling import LARGE_BYTES, Pickled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from penstock._core.workers.frames import FILLING, JOB, RESULT, WHOLE, FrameReader, Status
else:
    _frames = chosen("workers", "frames")
    FILLING, JOB, RESULT, WHOLE = _frames.FILLING, _frames.JOB, _frames.RESULT, _frames.WHOLE
    FrameReader, Status = _frames.FrameReader, _frames.Status

__all__ = ["FILLING", "JOB", "RESULT", "WHOLE", "Content", "FrameReader", "Status", "lay_out", "unpack"]

# offset of a buffer, its size in bytes, its kind
BUFFER = Struct("<QQQ")
NO_ROOM = 2**64 - 1
# The kinds of buffers: the pickle itself, a bytes, a bytearray, a buffer that an object exports.
TEXT, BYTES, BYTEARRAY, LENT = range(4)
BYTES_LIKE = {BYTES: bytes, BYTEARRAY: bytearray}


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
