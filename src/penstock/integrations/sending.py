"""The `send` of an admitted ASGI request: it detects when the answer begins, and when it becomes a stream.

An event stream and an accepted WebSocket are streams from their first message on. Any other answer becomes one after it
has gone on for a while; a few quick chunks do not suffice. Before an answer begins the request is work, however long.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, TypeAlias

from penstock.pressure.admission.streams import STREAM_AFTER_S

if TYPE_CHECKING:
    import asyncio

    from penstock.errors import Overloaded
    from penstock.pressure.admission.gate import Entry, Gate, GateStream

__all__ = ["Sender"]

Message: TypeAlias = MutableMapping[str, Any]
Send: TypeAlias = Callable[[Message], Awaitable[None]]


class Sender:
    """The `send` of a request. Given a gate and an entry, it gives the permit back when the answer is a stream.

    If the gate has its most streams already, an answer that is a stream from the beginning is shed: sending raises
    `refused`. Any other answer keeps its permit and asks again after `after_s` seconds.
    """

    __slots__ = ("_after_s", "_entry", "_gate", "_stream", "_timer", "has_begun", "refused", "send")

    def __init__(
        self, send: Send, gate: Gate | None = None, entry: Entry | None = None, after_s: float = STREAM_AFTER_S
    ) -> None:
        self.send = send
        # the entry while its answer may become a stream, then the stream
        self._gate, self._entry, self._after_s = gate, entry, after_s
        self._stream: GateStream | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.has_begun = False
        self.refused: Overloaded | None = None

    async def __call__(self, message: Message) -> None:
        """Pass a message on. Raises Overloaded for a stream that is shed."""
        if not self.has_begun:
            self._begin(message)
        elif self._timer is None and self._entry is not None and message.get("more_body"):
            self._set_timer()
        await self.send(message)

    def end(self) -> None:
        """End the stream, if it became one. The application has ended."""
        self._entry = None
        if self._timer is not None:
            self._timer.cancel()
        if self._stream is not None:
            self._stream.leave()

    def _begin(self, message: Message) -> None:
        if self._entry is not None:
            if _is_stream(message):
                self._require_stream(self._entry)
            elif message["type"].startswith("websocket."):
                # the handshake has failed
                self._entry.leave()
                self._entry = None
        self.has_begun = True

    def _require_stream(self, entry: Entry) -> None:
        assert self._gate is not None
        if self.refused is None and not self._become_stream(self._gate, entry):
            self.refused = self._gate.shed_stream()
        if self.refused is not None:
            raise self.refused

    def _become_stream(self, gate: Gate, entry: Entry) -> bool:
        self._stream = gate.stream(entry)
        if self._stream is None:
            return False
        self._entry = None
        return True

    def _set_timer(self) -> None:
        assert self._gate is not None
        self._timer = self._gate.loop.call_later(self._after_s, self._check)

    def _check(self) -> None:
        if self._entry is None or self._gate is None:
            return
        if not self._become_stream(self._gate, self._entry):
            self._set_timer()


def _is_stream(message: Message) -> bool:
    if message["type"] != "http.response.start":
        return bool(message["type"] == "websocket.accept")
    return any(
        name.lower() == b"content-type" and value.startswith(b"text/event-stream")
        for name, value in message.get("headers", ())
    )
