"""`Fixed`: a limit that does not move, such as the size of a connection pool or a measured capacity."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.pressure.limits.window import Window

__all__ = ["Fixed"]


class Fixed:
    """A constant limit.

    `limit` is a count of permits, a whole number of at least 1. `window_s` is infinite, because no window is needed.
    Raises ValueError for any other `limit`.
    """

    __slots__ = ("reason", "value", "window_s")

    def __init__(self, limit: int) -> None:
        if isinstance(limit, bool) or limit < 1:
            raise ValueError(f"limit = {limit!r}: a fixed limit is a whole number of at least 1")
        self.value = limit
        self.reason = "fixed"
        self.window_s = inf

    def update(self, window: Window) -> int:
        """Return the limit, which no window changes."""
        return self.value

    def __repr__(self) -> str:
        return f"Fixed({self.value})"
