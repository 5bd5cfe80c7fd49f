"""TLS, natively: the state machine of a connection, and the engines that encrypt for it."""

__all__: list[str] = []
