"""Sockets, natively: transports, listeners and watches."""

__all__: list[str] = []
