"""Synchronisation primitives with bounds and O(1) cancellation."""

__all__: list[str] = []
