"""Responses that go on: they give their permit back and are counted apart, up to a bound of their own.

A permit stands for work. An event stream works now and then and stays for hours: ten of them would use up the limit of
an idle service, and teach `auto` a lifetime in place of a latency. Knows no server and no protocol.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from penstock.pressure.admission.gate import Entry, Gate

__all__ = ["STREAM_AFTER_S", "Passage", "Stream"]

# A response that goes on for so long after it began is a stream.
STREAM_AFTER_S = 1.0


class Stream:
    """One response that goes on beyond its gate, which counts it until `leave()` or until nothing refers to it.

    `holds_drain`: a drain waits for it, as it does for what holds a permit.
    """

    __slots__ = ("__weakref__", "_gate", "holds_drain")

    def __init__(self, gate: Gate, *, holds_drain: bool = False) -> None:
        self._gate, self.holds_drain = gate, holds_drain
        gate.live_streams.add(self)

    def leave(self) -> None:
        """End it."""
        self._gate.live_streams.discard(self)


class Passage:
    """An entry on its way through a gate, which may become a stream while it is inside. `async with` it.

    `holds_drain`: a drain waits for the stream, whose connection it does not know.
    """

    __slots__ = ("_after_s", "_entry", "_gate", "_holds_drain", "_stream", "_timer")

    def __init__(self, gate: Gate, entry: Entry, after_s: float = STREAM_AFTER_S, *, holds_drain: bool = False) -> None:
        self._gate, self._entry, self._after_s, self._holds_drain = gate, entry, after_s, holds_drain
        self._stream: Stream | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        await self._entry.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._stream is not None:
            self._stream.leave()
        else:
            await self._entry.__aexit__(kind, value, traceback)

    def watch(self, has_begun: Callable[[], bool] = lambda: True) -> None:
        """Have it become a stream once `after_s` seconds have passed and its answer has begun.

        Where the gate has as many streams as it may, it keeps its permit and asks again after as long.
        """
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._after_s, self._check, has_begun)

    def become_stream(self) -> None:
        """Make it a stream at once. Raises Overloaded, reason `streams`, if the gate has as many as it may."""
        self._stream = self._gate.stream(self._entry, holds_drain=self._holds_drain)
        if self._stream is None:
            raise self._gate.shed_stream()

    def _check(self, has_begun: Callable[[], bool]) -> None:
        if has_begun():
            self._stream = self._gate.stream(self._entry, holds_drain=self._holds_drain)
        if self._stream is None:
            self.watch(has_begun)
