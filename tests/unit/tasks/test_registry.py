"""The registry of observers, while a garbage collection closes loops at any point."""

import threading
from types import SimpleNamespace
from typing import Any

from penstock.tasks.observers import registry


class Loop:
    """A loop as the registry knows one. `hashed` is called at each look-up, where a collection may run."""

    def __init__(self) -> None:
        self.hashed: Any = lambda: None

    def __hash__(self) -> int:
        self.hashed()
        return id(self)

    def is_closed(self) -> bool:
        return False


def test_a_loop_that_is_collected_during_a_registration_stops_nothing() -> None:
    observer: Any = SimpleNamespace(findings=SimpleNamespace(listen=lambda listener: None))
    first, second = Loop(), Loop()
    registered: Any = registry.register
    registered(first, observer)
    # in the middle, with the lock held
    second.hashed = lambda: registry.unregister(first)  # type: ignore[arg-type]
    thread = threading.Thread(target=lambda: registered(second, observer), daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    second.hashed = lambda: None
    assert [loop for loop, _ in registry.observed_loops() if isinstance(loop, Loop)] == [second]
    registry.unregister(second)  # type: ignore[arg-type]
