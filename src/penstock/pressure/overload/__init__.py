"""Overload protection of one loop: its lag, its tasks and its connections."""

__all__: list[str] = []
