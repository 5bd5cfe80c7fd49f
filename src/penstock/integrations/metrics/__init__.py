"""The process's metrics for Prometheus: an ASGI application, or a port of its own. Extra `prometheus`."""

from typing import TYPE_CHECKING

from penstock.lazy import lazy_names

if TYPE_CHECKING:
    from penstock.integrations.metrics.exporter import (
        MetricsApp,
        MetricsServer,
        join_workers,
        metrics_app,
        process_sources,
        serve_metrics,
    )

__all__ = ["MetricsApp", "MetricsServer", "join_workers", "metrics_app", "process_sources", "serve_metrics"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "penstock.integrations.metrics.exporter": (
                "MetricsApp",
                "MetricsServer",
                "join_workers",
                "metrics_app",
                "process_sources",
                "serve_metrics",
            )
        },
    )
