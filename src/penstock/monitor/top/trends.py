"""Trends: whether a figure rises or falls against its own recent past."""

from __future__ import annotations

__all__ = ["Trends"]

UP, DOWN, LEVEL = "↑", "↓", " "
# the weight of a new value in the slow mean
WEIGHT = 0.25
# a change below this share of the mean is none
LEAST_SHARE = 0.1
# figures that are remembered
MOST = 20_000


class Trends:
    """The slow means of figures by key. A figure is compared with its mean, and then joins it."""

    def __init__(self) -> None:
        self._means: dict[object, float] = {}
        self._arrows: dict[object, str] = {}

    def add(self, key: object, value: float) -> None:
        """Add a new value of a figure."""
        mean = self._means.get(key)
        if len(self._means) > MOST:
            self._means.clear()
            self._arrows.clear()
        if mean is None:
            self._means[key], self._arrows[key] = value, LEVEL
            return
        least = max(abs(mean), abs(value)) * LEAST_SHARE
        moved = value - mean
        self._arrows[key] = LEVEL if abs(moved) <= least else UP if moved > 0 else DOWN
        self._means[key] = mean + moved * WEIGHT

    def arrow(self, key: object) -> str:
        """Return an arrow up or down, or a space for a figure that stays or is new."""
        return self._arrows.get(key, LEVEL)
