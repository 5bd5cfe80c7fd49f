"""The pace of an answer: work in pieces of a fraction of a millisecond, with the GIL released between them.

A thread that wants the GIL waits for up to 5 ms until Python takes it from the thread that works. An answer must not
delay the loop by that much at each look, so it lets the loop go first of its own accord.
"""

from __future__ import annotations

from time import monotonic_ns, sleep
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["Pace"]

# a piece, and the pause in which a waiting thread gets the GIL
PIECE_NS = 300_000
PAUSE_S = 0.0002


class Pace:
    """The pace of one answer. `tick` is called after each pause: the answering thread has the GIL again."""

    def __init__(self, tick: Callable[[], object] | None = None) -> None:
        self._tick = tick
        self._since_ns = monotonic_ns()

    def rest(self) -> None:
        """Pause if the present piece is long enough. Call it between steps of the work."""
        if monotonic_ns() - self._since_ns >= PIECE_NS:
            self.pause()

    def pause(self) -> None:
        """Let other threads have the GIL."""
        sleep(PAUSE_S)
        if self._tick is not None:
            self._tick()
        self._since_ns = monotonic_ns()

    def over(self, items: Iterable[Any]) -> Iterator[Any]:
        """Yield the items, and pause between them."""
        for item in items:
            yield item
            self.rest()
