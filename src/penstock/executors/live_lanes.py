"""The lanes of one kind that live now. A thread may add one while another thread reads them."""

from __future__ import annotations

from typing import Generic, TypeVar
from weakref import WeakValueDictionary

__all__ = ["LivingLanes"]

T = TypeVar("T")


class LivingLanes(Generic[T]):
    """Lanes, weakly held. Iterating a WeakSet raises RuntimeError when another thread adds to it; this does not."""

    def __init__(self) -> None:
        self._lanes: WeakValueDictionary[int, T] = WeakValueDictionary()

    def add(self, lane: T) -> None:
        """Keep the lane for as long as it lives."""
        self._lanes[id(lane)] = lane

    def all(self) -> list[T]:
        """Return the lanes that live now. The table is copied in one step of C code."""
        return [lane for reference in self._lanes.valuerefs() if (lane := reference()) is not None]
