"""Closes a connection so that its client reads the last answer although it still sends: on any loop.

A socket that is closed over unread data is reset, and the reset may overtake the answer. penstock's own transports
read on natively, see `penstock._core.overload.lingering`. Over any other, TLS too, a protocol does that discards what
comes.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from penstock.loop.transports import native_transport

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LINGER_BYTES", "LINGER_S", "MOST_AT_ONCE", "close_lingering"]

# the same for each that lingers, wherever it does
LINGER_S = 5.0
LINGER_BYTES = 4 * 1024 * 1024
MOST_AT_ONCE = 512

# weakly: what lingers as its loop is closed is not counted for ever
_lingering: WeakSet[Discarding] = WeakSet()


def close_lingering(transport: Any, owner: object = None) -> None:
    """Close a transport whose protocol has sent its last answer; what its client still sends is discarded.

    That ends with the client's own end, or after 5 s or 4 MiB. At most 512 linger at once. `owner` is kept until then:
    a StreamWriter warns when it is collected and its transport is open.
    """
    native = native_transport(transport)
    if native is transport:
        native.linger()
        transport.close()
    elif not transport.is_closing():
        Discarding(transport, owner).begin()


class Discarding(asyncio.Protocol):
    """Takes a connection's last bytes; its former protocol hears of its end alone."""

    def __init__(self, transport: Any, owner: object) -> None:
        self._transport, self._former, self._owner = transport, transport.get_protocol(), owner
        self._left_bytes = LINGER_BYTES
        self._cancel: Callable[[], object] = lambda: None

    def begin(self) -> None:
        """Take the former protocol's place."""
        if len(_lingering) >= MOST_AT_ONCE:
            self._transport.close()
            return
        _lingering.add(self)
        self._cancel = asyncio.get_running_loop().call_later(LINGER_S, self._transport.abort).cancel
        self._transport.set_protocol(self)
        self._transport.resume_reading()
        # over TLS the client has to find the end in the answer itself
        if self._transport.can_write_eof():
            try:
                self._transport.write_eof()
            except OSError:
                # the client has gone, and its end is not read yet
                self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Forget it."""
        self._left_bytes -= len(data)
        if self._left_bytes <= 0:
            self._transport.abort()

    def pause_writing(self) -> None:
        """Pass it on, as what comes after: the answer may still be in the queue."""
        self._former.pause_writing()

    def resume_writing(self) -> None:
        """As `pause_writing`."""
        self._former.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        """Tell the former protocol."""
        _lingering.discard(self)
        self._cancel()
        self._former.connection_lost(error)
