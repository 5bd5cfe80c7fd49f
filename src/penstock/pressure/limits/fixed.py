"""A limit that does not move: the size of the database's pool, the number of cores, what a measurement has shown."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.pressure.limits.window import Window

__all__ = ["Fixed"]


class Fixed:
    """Always `limit`, a whole number of at least 1. `window_s` is infinite: it has no use for windows."""

    __slots__ = ("reason", "value", "window_s")

    def __init__(self, limit: int) -> None:
        if isinstance(limit, bool) or limit < 1:
            raise ValueError(f"limit = {limit!r}: a fixed limit is a whole number of at least 1")
        self.value = limit
        self.reason = "fixed"
        self.window_s = inf

    def update(self, window: Window) -> int:
        """The same number, whatever happened."""
        return self.value

    def __repr__(self) -> str:
        return f"Fixed({self.value})"
