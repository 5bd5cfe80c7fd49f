"""The native half of the attach server: the thread that answers without the GIL."""

__all__: list[str] = []
