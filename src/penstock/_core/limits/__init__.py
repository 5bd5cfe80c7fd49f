"""Bounds of connections, natively: bytes of the process, times of a peer. Bookkeeping without I/O."""

__all__: list[str] = []
