"""The native half of gates and semaphores."""

__all__: list[str] = []
