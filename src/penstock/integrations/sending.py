"""The `send` of an ASGI request that was let in: when its answer begins, and when that has become a stream.

An event stream and an accepted WebSocket are streams from their first message on. Any other answer is one after it has
gone on for a while: three quick chunks are not. An answer that has not begun may be work, however long it takes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, TypeAlias

from penstock.pressure.admission.streams import STREAM_AFTER_S

if TYPE_CHECKING:
    import asyncio

    from penstock.errors import Overloaded
    from penstock.integrations.turns import Turn
    from penstock.pressure.admission.gate import Gate

__all__ = ["Sender"]

Message: TypeAlias = MutableMapping[str, Any]
Send: TypeAlias = Callable[[Message], Awaitable[None]]


class Sender:
    """Passes messages on. Given a gate and a turn, it gives the turn's permit back when the answer is a stream.

    Where the gate has as many streams as it may, what is one from the beginning is refused: sending raises `refused`.
    Any other one keeps its permit and asks again after as long.
    """

    __slots__ = ("_after_s", "_gate", "_timer", "_turn", "has_begun", "refused", "send")

    def __init__(self, send: Send, gate: Gate | None = None, turn: Turn | None = None, after_s: float = STREAM_AFTER_S):
        self.send = send
        self._gate, self._turn, self._after_s = gate, turn, after_s
        self._timer: asyncio.TimerHandle | None = None
        self.has_begun = False
        self.refused: Overloaded | None = None

    async def __call__(self, message: Message) -> None:
        """Pass a message on."""
        if not self.has_begun:
            self._begin(message)
        elif self._timer is None and self._turn is not None and message.get("more_body"):
            self._wait()
        await self.send(message)

    def end(self) -> None:
        """Stop watching: the application has ended."""
        self._turn = None
        if self._timer is not None:
            self._timer.cancel()

    def _begin(self, message: Message) -> None:
        if self._turn is not None:
            if _is_stream(message):
                self._stream(self._turn)
            elif message["type"].startswith("websocket."):
                # the handshake has failed
                self._turn.leave()
                self._turn = None
        self.has_begun = True

    def _stream(self, turn: Turn) -> None:
        assert self._gate is not None
        if self.refused is None and not turn.become_stream(self._gate):
            self.refused = self._gate.shed_stream()
        if self.refused is not None:
            raise self.refused
        self._turn = None

    def _wait(self) -> None:
        assert self._gate is not None
        self._timer = self._gate.loop.call_later(self._after_s, self._check)

    def _check(self) -> None:
        if self._turn is None or self._gate is None:
            return
        if self._turn.become_stream(self._gate):
            self._turn = None
        else:
            self._wait()


def _is_stream(message: Message) -> bool:
    if message["type"] != "http.response.start":
        return bool(message["type"] == "websocket.accept")
    return any(
        name.lower() == b"content-type" and value.startswith(b"text/event-stream")
        for name, value in message.get("headers", ())
    )
