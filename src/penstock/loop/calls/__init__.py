"""Calls on plain sockets and look-ups of names, the part of them that needs no thread."""

__all__: list[str] = []
