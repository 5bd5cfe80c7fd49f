"""Sockets, natively: transports, listeners, watches, and the bounds of connections."""

__all__: list[str] = []
