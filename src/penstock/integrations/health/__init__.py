"""Liveness and readiness on a port of their own."""

from typing import TYPE_CHECKING

from penstock.lazy import lazy_names

if TYPE_CHECKING:
    from penstock.integrations.health.server import HealthServer, Judge, LoopCondition

__all__ = ["HealthServer", "Judge", "LoopCondition"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "penstock.integrations.health.server": (
                "HealthServer",
                "Judge",
                "LoopCondition",
            )
        },
    )
