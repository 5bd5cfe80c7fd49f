"""A stream transport over two pipes in memory, with asyncio's rules for flow control, ends and errors."""

from __future__ import annotations

import asyncio
import errno
from asyncio import constants, transports
from collections import deque
from typing import TYPE_CHECKING, Any

from penstock.testing.pipe import StreamEnd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from penstock.testing.pipe import Pipe

__all__ = ["MemoryTransport"]

if TYPE_CHECKING:

    class FlowControl(asyncio.Transport):
        """asyncio's flow control, by the names that its own transports use."""

        def __init__(self, extra: Any, loop: Any) -> None: ...
        def _maybe_pause_protocol(self) -> None: ...
        def _maybe_resume_protocol(self) -> None: ...

else:
    FlowControl = transports._FlowControlMixin

READ_BYTES = 256 * 1024


class MemoryTransport(FlowControl, asyncio.Transport):
    """One end of a connection in memory.

    `on_lost` is called once, after the protocol's `connection_lost`. A transport that closes with unread bytes, or that
    receives bytes after it has closed, resets its peer, as TCP does.
    """

    _start_tls_compatible = False
    # asyncio reads the file and writes its contents
    _sendfile_compatible = constants._SendfileMode.FALLBACK

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        outgoing: Pipe,
        incoming: Pipe,
        *,
        extra: dict[str, Any],
        on_lost: Callable[[MemoryTransport], None],
        reads: bool = True,
    ) -> None:
        # asyncio's flow control holds the watermarks
        super().__init__(extra, loop)
        self._loop = loop
        self._outgoing, self._incoming = outgoing, incoming
        outgoing.sender = incoming.receiver = self
        self._on_lost = on_lost
        self._reads = reads
        self._protocol: Any = None
        self._inbox: deque[bytes | StreamEnd] = deque()
        self._read_handle: asyncio.Handle | None = None
        self._started = self._paused = self._closing = self._lost = self._gone = False
        self._eof_given = self._eof_sent = self._eof_seen = False
        self._buffer: deque[memoryview] = deque()
        self._buffered_bytes = 0

    def __repr__(self) -> str:
        state = "closed" if self._gone else "closing" if self._closing else "paused" if self._paused else "open"
        return f"<MemoryTransport {self._extra.get('sockname')} to {self._extra.get('peername')} {state}>"  # type: ignore[attr-defined]

    def start(self, protocol: Any) -> None:
        """Set the protocol and call its `connection_made` in the next turn; reading begins after it."""
        self._protocol = protocol
        self._loop.call_soon(self._begin)

    def _begin(self) -> None:
        if self._gone:
            return
        self._started = True
        try:
            self._protocol.connection_made(self)
        finally:
            self._plan_read()

    # --- reading ---

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Use another protocol from the next event on."""
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol."""
        return self._protocol  # type: ignore[no-any-return]

    def is_reading(self) -> bool:
        """Return whether received bytes are passed to the protocol."""
        return not (self._closing or self._paused)

    def pause_reading(self) -> None:
        """Read no more for now: the peer's flow control begins when the link is full."""
        self._paused = True

    def resume_reading(self) -> None:
        """Read again, from the next turn on."""
        if self._paused and not self._closing:
            self._paused = False
            self._plan_read()

    def on_arrival(self, item: bytes | StreamEnd) -> None:
        """Read bytes or an end, at once if the inbox is empty."""
        if self._gone:
            if isinstance(item, bytes):
                self._outgoing.end(StreamEnd.RESET)
        elif item is StreamEnd.RESET and (self._closing or self._paused or not self._reads):
            self._fail(_reset())
        else:
            self._inbox.append(item)
            if self._read_handle is None:
                self._read()

    def _plan_read(self) -> None:
        if self._inbox and self._read_handle is None:
            self._read_handle = self._loop.call_soon(self._read)

    def _read(self) -> None:
        self._read_handle = None
        if not (self._inbox and self._started and self._reads) or self._closing or self._paused:
            return
        if isinstance(self._inbox[0], bytes):
            self._give(self._take(min(READ_BYTES, self._incoming.segment_bytes())))
        elif self._inbox.popleft() is StreamEnd.RESET:
            self._fail(_reset())
        else:
            self._eof()
        self._plan_read()

    def _take(self, most_bytes: int) -> bytes:
        """Return the bytes of one read: several writes may be joined, since a stream has no message boundaries."""
        pieces: list[bytes] = []
        room = most_bytes
        while room and self._inbox and isinstance(piece := self._inbox[0], bytes):
            if len(piece) > room:
                self._inbox[0] = piece[room:]
                piece = piece[:room]
            else:
                self._inbox.popleft()
            pieces.append(piece)
            room -= len(piece)
        self._incoming.read(most_bytes - room)
        return b"".join(pieces)

    def _give(self, data: bytes) -> None:
        try:
            if isinstance(self._protocol, asyncio.BufferedProtocol):
                _fill(self._protocol, data)
            else:
                self._protocol.data_received(data)
        except Exception as error:
            self._fatal(error, "Fatal error: protocol.data_received() call failed.")

    def _eof(self) -> None:
        self._eof_seen = True
        try:
            keep = self._protocol.eof_received()
        except Exception as error:
            self._fatal(error, "Fatal error: protocol.eof_received() call failed.")
            return
        if not keep:
            self.close()

    # --- writing ---

    def get_write_buffer_size(self) -> int:
        """Return the number of bytes that wait to be sent."""
        return self._buffered_bytes

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Send, and buffer the bytes for which the link has no room. Raises TypeError, and RuntimeError after EOF."""
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"data argument must be a bytes-like object, not {type(data).__name__!r}")
        if self._eof_given:
            raise RuntimeError("Cannot call write() after write_eof()")
        if not data or self._lost:
            return
        # a copy: the caller may reuse its buffer
        view = memoryview(bytes(data))
        self._buffer.append(view)
        self._buffered_bytes += len(view)
        if len(self._buffer) == 1:
            self._push()
        self._check_watermarks()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview[Any]]) -> None:
        """Send all of them as one write."""
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        """Return True: a stream can close one direction."""
        return True

    def write_eof(self) -> None:
        """Close the writing direction after the buffered bytes; reading goes on."""
        if not (self._closing or self._eof_given):
            self._eof_given = True
            self._push()

    def on_room(self) -> None:
        """Send on: the link has room again."""
        if not self._lost:
            self._push()
            self._check_watermarks()

    def _push(self) -> None:
        """Send buffered bytes. After a partial send go on in the next turn, or when the link has room."""
        while self._buffer:
            view = self._buffer[0]
            taken = self._outgoing.send(view)
            self._buffered_bytes -= taken
            if taken < len(view):
                self._buffer[0] = view[taken:]
                if taken:
                    self._outgoing.notify_room()
                return
            self._buffer.popleft()
        self._check_watermarks()
        if self._closing:
            self._lose(None)
        elif self._eof_given:
            self._send_eof()

    def _send_eof(self) -> None:
        if not self._eof_sent:
            self._eof_sent = True
            self._outgoing.end(StreamEnd.EOF)

    def _check_watermarks(self) -> None:
        self._maybe_pause_protocol()
        self._maybe_resume_protocol()

    # --- the end ---

    def is_closing(self) -> bool:
        """Return whether the transport is closed or closing."""
        return self._closing

    def close(self) -> None:
        """Read no more, send the buffered bytes, then end."""
        if self._closing:
            return
        self._closing = True
        if not self._buffer:
            self._lose(None)

    def abort(self) -> None:
        """End now; buffered bytes are lost."""
        self._fail(None)

    def reset(self) -> None:
        """End now, as if the peer had reset the connection."""
        self._fail(_reset())

    def _fatal(self, error: BaseException, message: str) -> None:
        if not isinstance(error, OSError):
            self._report(error, message)
        self._fail(error)

    def _report(self, error: BaseException, message: str) -> None:
        self._loop.call_exception_handler(
            {"message": message, "exception": error, "transport": self, "protocol": self._protocol}
        )

    def _fail(self, error: BaseException | None) -> None:
        self._closing = True
        self._buffer.clear()
        self._buffered_bytes = 0
        self._lose(error)

    def _lose(self, error: BaseException | None) -> None:
        if not self._lost:
            self._lost = True
            self._loop.call_soon(self._finish, error)

    def _finish(self, error: BaseException | None) -> None:
        try:
            if self._started:
                self._protocol.connection_lost(error)
        finally:
            self._gone = True
            unread = any(isinstance(item, bytes) for item in self._inbox)
            self._inbox.clear()
            if unread:
                self._outgoing.end(StreamEnd.RESET)
            elif not isinstance(error, ConnectionResetError):
                self._send_eof()
            self._on_lost(self)


def _reset() -> ConnectionResetError:
    return ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")


def _fill(protocol: asyncio.BufferedProtocol, data: bytes) -> None:
    view = memoryview(data)
    while view:
        buffer = memoryview(protocol.get_buffer(len(view)))
        count = min(len(buffer), len(view))
        if not count:
            raise RuntimeError("get_buffer() returned an empty buffer")
        buffer[:count] = view[:count]
        protocol.buffer_updated(count)
        view = view[count:]
