"""Datagrams: many of them for each system call, on UDP and Unix sockets."""

__all__: list[str] = []
