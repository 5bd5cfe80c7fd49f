"""Health checks of a process, liveness and readiness, on a port of their own."""

from typing import TYPE_CHECKING

from penstock.lazy import lazy_names

if TYPE_CHECKING:
    from penstock.integrations.health.server import HealthEndpoints, HealthServer, LoopHealth

__all__ = ["HealthEndpoints", "HealthServer", "LoopHealth"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "penstock.integrations.health.server": (
                "HealthServer",
                "HealthEndpoints",
                "LoopHealth",
            )
        },
    )
