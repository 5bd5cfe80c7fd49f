"""Calls that may become streams: such a call gives its permit back and counts apart, up to a bound of its own.

A permit stands for work. An event stream works now and then and stays for hours: ten of them would use up the limit of
an idle service, and teach `auto` a lifetime in place of a latency. This module knows no server and no protocol.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from penstock.config import PressureConfig

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from penstock.pressure.admission.gate import Entry, Gate, GateStream

__all__ = ["STREAM_AFTER_S", "Passage"]

# The age in seconds, from its beginning, at which a response is a stream.
STREAM_AFTER_S: float = PressureConfig().stream_after_s


class Passage:
    """An entry that may become a stream while it has its permit. Use it as `async with`.

    It becomes a stream `after_s` seconds after `watch`. `holds_drain`: a drain, which does not know its connection,
    waits for the stream.
    """

    __slots__ = ("_after_s", "_entry", "_gate", "_holds_drain", "_stream", "_timer")

    def __init__(self, gate: Gate, entry: Entry, after_s: float = STREAM_AFTER_S, *, holds_drain: bool = False) -> None:
        self._gate, self._entry, self._after_s, self._holds_drain = gate, entry, after_s, holds_drain
        self._stream: GateStream | None = None
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
        """Make it a stream when `after_s` seconds have passed and `has_begun()` is true.

        If the gate has its most streams already, it keeps its permit and asks again after the same time.
        """
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._after_s, self._check, has_begun)

    def become_stream(self) -> None:
        """Make it a stream now. Raises Overloaded, reason `streams`, if the gate has its most streams already."""
        self._stream = self._gate.stream(self._entry, holds_drain=self._holds_drain)
        if self._stream is None:
            raise self._gate.shed_stream()

    def _check(self, has_begun: Callable[[], bool]) -> None:
        if has_begun():
            self._stream = self._gate.stream(self._entry, holds_drain=self._holds_drain)
        if self._stream is None:
            self.watch(has_begun)
