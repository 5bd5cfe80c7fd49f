"""Whether to look for an answer a moment before sleeping: worth it as long as it succeeds.

To wake a process costs tens of microseconds, on a virtual machine a hundred and more, and a call wakes two: more than a
short job takes. But to look keeps the core busy, which may be the very one that the other side waits for: then looking
never succeeds, and is given up for longer and longer.
"""

from __future__ import annotations

__all__ = ["LOOK_NS", "Patience"]

# How long to look; and what is not expected within this time is not worth it. It has to outlast one wake of the other
# side, or two sides that sleep never find each other awake: of 100, 200, 300 and 400 us the last two make a lone call
# cost a quarter of the first, and no less than each other.
LOOK_NS = 300_000
MOST_SKIPPED = 1023


class Patience:
    """`wants_to_look` before each wait; `found` tells whether a look was worth it."""

    __slots__ = ("_left", "_skip")

    def __init__(self) -> None:
        self._skip = self._left = 0

    def wants_to_look(self) -> bool:
        """Whether to look this time."""
        if self._left:
            self._left -= 1
            return False
        return True

    def found(self, in_time: bool) -> None:
        """What came of the look."""
        self._skip = 0 if in_time else min(2 * self._skip + 1, MOST_SKIPPED)
        self._left = self._skip
