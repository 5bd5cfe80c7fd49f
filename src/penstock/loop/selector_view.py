"""The selector view: the native poller's table, read-only, for asyncio code that expects a selector."""

from __future__ import annotations

import selectors
from typing import TYPE_CHECKING, Any

from penstock._core.net.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PollerView"]


class PollerView(selectors.BaseSelector):
    """`loop._selector` on the native loop: `get_map` and `get_key` answer, the poller itself waits and registers."""

    def __init__(self, loop: Any) -> None:
        self._loop = loop

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return {fd: key_of(fd, source) for fd, source in self._loop._native_core.sources().items()}

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        return super().get_key(fileobj if isinstance(fileobj, int) else fileobj.fileno())

    def close(self) -> None:
        pass

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        raise NotImplementedError("penstock's poller has no selector: use loop.add_reader() or loop.add_writer()")

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        raise NotImplementedError("penstock's poller has no selector: use loop.remove_reader() or loop.remove_writer()")

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        raise NotImplementedError("penstock's poller has no selector: the loop itself polls")


def key_of(fd: int, source: Any) -> selectors.SelectorKey:
    """The key that a selector would hold: the wanted events, and the handles that `add_reader` and `add_writer` set."""
    if not isinstance(source, Watch):
        return selectors.SelectorKey(fd, fd, selectors.EVENT_READ | selectors.EVENT_WRITE, (None, None))
    events = selectors.EVENT_READ * (source.reader is not None) | selectors.EVENT_WRITE * (source.writer is not None)
    return selectors.SelectorKey(fd, fd, events, (source.reader, source.writer))
