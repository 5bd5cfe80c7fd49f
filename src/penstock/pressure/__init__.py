"""Backpressure: a service does what it can, refuses the rest at once, and its memory stands still."""

__all__: list[str] = []
