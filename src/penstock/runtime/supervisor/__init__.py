"""The supervisor of worker processes."""

__all__: list[str] = []
