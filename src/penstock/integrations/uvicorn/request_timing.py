"""Reports to the loop when uvicorn is receiving a request, so that `pressure.receive_s` applies to silent clients too.

The loop cannot know whether a silent client has sent its whole request. uvicorn's protocols do: httptools calls them at
both ends of a message, h11 has states. Without such a protocol the loop estimates, as under any server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock.pressure.overload.connections import set_receiving

if TYPE_CHECKING:
    import uvicorn

__all__ = ["report_receiving"]

BY_CALLS = ("on_message_begin", "on_message_complete", "data_received", "connection_made")
BY_STATES = ("handle_events", "on_response_complete", "data_received", "connection_made")


def report_receiving(config: uvicorn.Config) -> bool:
    """Report receiving from the server of a loaded config.

    Return False, and change nothing, for a protocol or a version of uvicorn without the hooks.
    """
    protocol: Any = config.http_protocol_class
    if all(hasattr(protocol, name) for name in BY_CALLS):
        config.http_protocol_class = _reporting_by_calls(protocol)
    elif all(hasattr(protocol, name) for name in BY_STATES):
        config.http_protocol_class = _reporting_by_states(protocol)
    else:
        return False
    return True


class ReceiveReporter:
    """The common part of both protocols: the last report, and whether the loop takes reports."""

    transport: Any
    _is_reporting = False
    _was_receiving = False

    def _begin_reporting(self) -> None:
        # a new client is expected to send a request
        self._is_reporting = self._was_receiving = set_receiving(self.transport, True)

    def _report(self, is_partial: bool) -> None:
        if is_partial is not self._was_receiving:
            self._was_receiving = is_partial
            set_receiving(self.transport, is_partial)


def _reporting_by_calls(protocol: Any) -> Any:
    # per request: without super() it costs two fifths less
    received, begun, ended = protocol.data_received, protocol.on_message_begin, protocol.on_message_complete

    class Receiving(ReceiveReporter, protocol):  # type: ignore[misc]
        """uvicorn's protocol over httptools, which calls it when a request begins and when it ends."""

        _is_partial = False

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if hasattr(self, "cycle"):
                self._begin_reporting()

        def data_received(self, data: bytes) -> None:
            if not self._is_reporting:
                received(self, data)
                return
            # Any bytes begin a request, empty lines too: uvicorn waits for its end from then on. While a request is in
            # progress they do not.
            if not self._is_partial and (self.cycle is None or self.cycle.response_complete):
                self._is_partial = True
            received(self, data)
            if self._is_partial is not self._was_receiving:
                self._report(self._is_partial)

        def on_message_begin(self) -> None:
            self._is_partial = True
            begun(self)

        def on_message_complete(self) -> None:
            self._is_partial = False
            ended(self)

    return Receiving


def _reporting_by_states(protocol: Any) -> Any:
    import h11

    class Receiving(ReceiveReporter, protocol):  # type: ignore[misc]
        """uvicorn's protocol over h11, which has a state for the client's side."""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if hasattr(getattr(self, "conn", None), "trailing_data"):
                self._begin_reporting()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._check()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            # the next request of a pipeline may have arrived in part
            self._check()

        def _check(self) -> None:
            if self._is_reporting:
                state = self.conn.their_state
                self._report(state is h11.SEND_BODY or (state is h11.IDLE and bool(self.conn.trailing_data[0])))

    return Receiving
