"""Every gate there is, weakly held: what metrics and the loop's own gate look through."""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.pressure.admission.gate import Gate, GateStatistics

__all__ = ["gates", "listen", "register", "statistics"]

_gates: weakref.WeakSet[Gate] = weakref.WeakSet()
_lock = threading.RLock()
_listener: Callable[[Gate, str], object] | None = None


def register(gate: Gate) -> None:
    """Have the gate listed for as long as it lives."""
    with _lock:
        _gates.add(gate)
        if _listener is not None and gate.on_shed is None:
            gate.on_shed = _listener


def gates() -> list[Gate]:
    """The gates that live now, by name. Any thread may ask."""
    with _lock:
        return sorted(_gates, key=lambda gate: gate.name)


def listen(listener: Callable[[Gate, str], object] | None) -> None:
    """Have every gate call `listener(gate, reason)` for each refusal, in place of the former one; None: no more.

    A gate whose `on_shed` is the program's own keeps that. A listener makes refusals dearer: nobody listens for long.
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


def statistics() -> dict[str, GateStatistics]:
    """Each gate's statistics by its name; of several with one name, the second is "name (2)"."""
    found: dict[str, GateStatistics] = {}
    for gate in gates():
        name, count = gate.name, 1
        while name in found:
            count += 1
            name = f"{gate.name} ({count})"
        found[name] = gate.statistics()
    return found
