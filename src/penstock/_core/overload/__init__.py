"""The native half of the loop's own gate: lag, deferred reads and answers to requests that are not read."""

__all__: list[str] = []
