"""`Line`: futures that wait, first come first served, each leaving it in O(1) wherever it stands.

Who is cancelled is not looked for: it is passed over when its turn comes, and swept out with the others when half of
the line is such. That costs less than an ordered dict, and a constant for each all the same.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

    Futures = deque[asyncio.Future[Any]]
else:
    Futures = deque

__all__ = ["Line"]

# fewer than so many are left for later
FEW = 32


class Line(Futures):
    """A deque of futures, `append` and `len` and all; some of them may be done, which is by cancellation."""

    # how many of the line are known to have gone; short by those that were passed over before their tasks ran
    __slots__ = ("_gone",)

    def __init__(self) -> None:
        super().__init__()
        self._gone = 0

    def take(self) -> asyncio.Future[Any] | None:
        """The first that waits, out of the line; None if none does."""
        while self:
            first = self.popleft()
            if not first.done():
                return first
            self._gone -= 1
        return None

    def anyone(self) -> bool:
        """Whether any waits."""
        while self and self[0].done():
            self.popleft()
            self._gone -= 1
        return bool(self)

    def leave(self) -> None:
        """One that is done is here no longer, if it still was. To be called once for each, by its task."""
        self._gone += 1
        while self and self[-1].done():
            self.pop()
            self._gone -= 1
        if self.anyone() and self._gone > FEW and self._gone * 2 > len(self):
            self.sweep()

    def sweep(self) -> None:
        """Have only those here that wait."""
        waiting = [future for future in self if not future.done()]
        self._gone -= len(self) - len(waiting)
        self.clear()
        self.extend(waiting)
