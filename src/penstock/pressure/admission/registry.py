"""The gates of this process, weakly held: for metrics, and for the loop's own gate.

A gate registers itself. The registry imports no gate, so that programs without one need not load it.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["RegisteredGate", "listen", "register", "registered"]


class RegisteredGate(Protocol):
    """The part of a gate that its observers use."""

    name: str
    loop: Any
    inflight: int
    live_streams: Any
    on_shed: Callable[[Any, str], object] | None
    scale: float

    def statistics(self) -> Any:
        """Return the gate's `GateStatistics`."""


_gates: weakref.WeakSet[RegisteredGate] = weakref.WeakSet()
_lock = threading.RLock()
_listener: Callable[[Any, str], object] | None = None


def register(gate: RegisteredGate) -> None:
    """List a gate for as long as it lives."""
    with _lock:
        _gates.add(gate)
        if _listener is not None and gate.on_shed is None:
            gate.on_shed = _listener


def registered() -> list[RegisteredGate]:
    """Return the live gates, by name. Callable from any thread."""
    with _lock:
        return sorted(_gates, key=lambda gate: gate.name)


def listen(listener: Callable[[Any, str], object] | None) -> None:
    """Have every gate call `listener(gate, reason)` for each shed, in place of the former listener; None ends it.

    A gate keeps an `on_shed` that the program has set. A listener makes sheds dearer, so listen for a short time only.
    """
    global _listener
    with _lock:
        former, _listener = _listener, listener
        for gate in _gates:
            if gate.on_shed is None or gate.on_shed is former:
                gate.on_shed = listener


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
