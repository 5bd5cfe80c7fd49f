"""Observers: the sources of task telemetry for each kind of loop."""

__all__: list[str] = []
