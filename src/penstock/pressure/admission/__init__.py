"""Admission: gates, their limits and the answers to refused requests."""

__all__: list[str] = []
