"""What every limit that moves has: a number between two bounds, kept exactly and given out whole, and why it moved."""

from __future__ import annotations

__all__ = ["Moving"]


class Moving:
    """The base of limits that move: `value` is at least `least` and at most `most`. Raises ValueError."""

    __slots__ = ("_exact", "_least", "_most", "reason", "value", "window_s")

    def __init__(self, initial: int, least: int, most: int, window_s: float) -> None:
        if not 1 <= least <= initial <= most:
            raise ValueError(f"least = {least}, initial = {initial}, most = {most}: must ascend from 1")
        self.value, self._exact = initial, float(initial)
        self.reason = "initial"
        self.window_s = window_s
        self._least, self._most = least, most

    def _set(self, wanted: float, why: str) -> None:
        self._exact = max(self._least, min(self._most, wanted))
        if int(self._exact) != self.value:
            self.value, self.reason = int(self._exact), why
