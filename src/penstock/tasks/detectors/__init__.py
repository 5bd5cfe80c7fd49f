"""Detectors: stalls, stuck tasks, abandoned tasks and trends."""

__all__: list[str] = []
