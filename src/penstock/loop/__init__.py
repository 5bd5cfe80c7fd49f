"""The Python half of the loop: the class that users see, and what runs once per connection or once per loop."""

from penstock.loop.native import EventLoop

NATIVE = True


def loop_class(poller: str) -> type[EventLoop]:
    """The loop class for a config's `poller`."""
    return EventLoop


__all__ = ["NATIVE", "EventLoop", "loop_class"]
