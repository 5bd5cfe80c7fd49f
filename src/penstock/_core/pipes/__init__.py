"""Pipe transports, natively: the reading and the writing end of pipes and stream sockets."""

__all__: list[str] = []
