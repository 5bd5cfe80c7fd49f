"""Counted TLS: asyncio's protocol, which reports its own buffers to the native transport below.

asyncio stops writing down at our high watermark and keeps up to 512 KiB more before it pauses the program's protocol.
Only a loop with limits of connections uses it, for it must count those bytes and pause the program's protocol.
"""

from __future__ import annotations

from asyncio import sslproto
from typing import TYPE_CHECKING, Any

__all__ = ["CountedTLS"]

if TYPE_CHECKING:

    class Protocol(sslproto.SSLProtocol):
        """With the names that typeshed leaves out."""

        _transport: Any
        _outgoing_high_water: int
        _outgoing_low_water: int
        _ssl_writing_paused: bool
        _write_buffer_size: int

        def _set_app_protocol(self, app_protocol: Any) -> None: ...
        def _process_outgoing(self) -> None: ...
        def _control_app_writing(self) -> None: ...
        def _get_write_buffer_size(self) -> int: ...

else:
    Protocol = sslproto.SSLProtocol


class CountedTLS(Protocol):
    """asyncio's SSLProtocol over a `Stream`."""

    # the watermarks (high, low) of the program's side while the budget has the connection paused
    _kept: tuple[int, int] | None = None

    def _set_app_protocol(self, app_protocol: Any) -> None:
        super()._set_app_protocol(app_protocol)
        # Not the first one, which is set before there is a connection.
        if getattr(self, "_transport", None) is not None:
            self._transport._switched()

    def _process_outgoing(self) -> None:
        if self._transport is not None and not self._ssl_writing_paused:
            # Encrypted bytes go down now: they must not count twice.
            self._transport._count_layer(self._write_buffer_size, moves=True)
        super()._process_outgoing()

    def _control_app_writing(self) -> None:
        transport = self._transport
        if transport is not None:
            transport._count_layer(self._get_write_buffer_size())
            self._follow(transport._budget_pauses)
        super()._control_app_writing()

    def _follow(self, pauses: bool) -> None:
        # Before the handshake is done the program's protocol does not know the connection.
        if pauses and self._kept is None and self._state is sslproto.SSLProtocolState.WRAPPED:  # type: ignore[attr-defined]
            self._kept = self._outgoing_high_water, self._outgoing_low_water
            # Paused by whatever is there, nothing included, and not resumed by being empty.
            self._outgoing_high_water, self._outgoing_low_water = 0, -1
        elif not pauses and self._kept is not None:
            (self._outgoing_high_water, self._outgoing_low_water), self._kept = self._kept, None

    def _set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        super()._set_write_buffer_limits(high, low)  # type: ignore[misc]
        if self._kept is not None:
            self._kept = None
            self._follow(True)
