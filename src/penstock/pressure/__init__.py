"""Backpressure: a service does what it can, refuses the rest at once, and its memory stands still."""

from typing import TYPE_CHECKING

from penstock.door import opened

if TYPE_CHECKING:
    from penstock.pressure.loopgate import LoopGate, LoopStatistics, loop_statistics

__all__ = ["LoopGate", "LoopStatistics", "loop_statistics"]

__getattr__ = opened(__name__, {"penstock.pressure.loopgate": ("LoopGate", "LoopStatistics", "loop_statistics")})
