"""Every gate there is, weakly held: what metrics and the loop's own gate look through."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.pressure.gate import Gate, GateStatistics

__all__ = ["gates", "register", "statistics"]

_gates: weakref.WeakSet[Gate] = weakref.WeakSet()


def register(gate: Gate) -> None:
    """Have the gate listed for as long as it lives."""
    _gates.add(gate)


def gates() -> list[Gate]:
    """The gates that live now, by name."""
    return sorted(_gates, key=lambda gate: gate.name)


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
