"""The events of a loop: handles, timers, the poller and the inbox."""

__all__: list[str] = []
