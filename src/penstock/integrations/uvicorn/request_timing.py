"""Tells a connection's pace when uvicorn is in the middle of a request: `pressure.receive_s` then holds, silent or not.

The loop alone cannot know whether a client that has fallen silent has sent all. uvicorn's protocols do: httptools calls
them at a message's two ends, h11 has states. Where they are not as expected the loop guesses, as under any server.
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
    """Have a loaded config's server tell its connections when a request is being received.

    False, and nothing is changed, with a protocol or a version of uvicorn that cannot.
    """
    protocol: Any = config.http_protocol_class
    if all(hasattr(protocol, name) for name in BY_CALLS):
        config.http_protocol_class = _called(protocol)
    elif all(hasattr(protocol, name) for name in BY_STATES):
        config.http_protocol_class = _looked_at(protocol)
    else:
        return False
    return True


class ReceiveReporter:
    """What both have in common: what was told last, and whether there is anyone to tell."""

    transport: Any
    _is_telling = False
    _is_told = False

    def _begin_telling(self) -> None:
        # a client that connects owes a request
        self._is_telling = self._is_told = set_receiving(self.transport, True)

    def _tell(self, is_partial: bool) -> None:
        if is_partial is not self._is_told:
            self._is_told = is_partial
            set_receiving(self.transport, is_partial)


def _called(protocol: Any) -> Any:
    # called for each request: without super() that costs two fifths less
    received, begun, ended = protocol.data_received, protocol.on_message_begin, protocol.on_message_complete

    class Receiving(ReceiveReporter, protocol):  # type: ignore[misc]
        """uvicorn's protocol over httptools, which is called where a request begins and where it ends."""

        _is_partial = False

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if hasattr(self, "cycle"):
                self._begin_telling()

        def data_received(self, data: bytes) -> None:
            if not self._is_telling:
                received(self, data)
                return
            # Whatever comes is a request's, empty lines too: uvicorn waits for its end from then on. But beside a
            # request that is worked on they mean nothing.
            if not self._is_partial and (self.cycle is None or self.cycle.response_complete):
                self._is_partial = True
            received(self, data)
            if self._is_partial is not self._is_told:
                self._tell(self._is_partial)

        def on_message_begin(self) -> None:
            self._is_partial = True
            begun(self)

        def on_message_complete(self) -> None:
            self._is_partial = False
            ended(self)

    return Receiving


def _looked_at(protocol: Any) -> Any:
    import h11

    class Receiving(ReceiveReporter, protocol):  # type: ignore[misc]
        """uvicorn's protocol over h11, which has a state for the client's half of a request."""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if hasattr(getattr(self, "conn", None), "trailing_data"):
                self._begin_telling()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._look()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            # the next of a pipeline may be there in part
            self._look()

        def _look(self) -> None:
            if self._is_telling:
                state = self.conn.their_state
                self._tell(state is h11.SEND_BODY or (state is h11.IDLE and bool(self.conn.trailing_data[0])))

    return Receiving
