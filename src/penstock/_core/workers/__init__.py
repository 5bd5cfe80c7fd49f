"""The native half of process lanes."""

__all__: list[str] = []
