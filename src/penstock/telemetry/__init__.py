"""The exporters of telemetry to Prometheus and OpenTelemetry, and the table of metrics."""

from typing import TYPE_CHECKING

from penstock.lazy import lazy_names

if TYPE_CHECKING:
    from penstock.telemetry.names import METRICS, Metric
    from penstock.telemetry.opentelemetry import Instruments
    from penstock.telemetry.prometheus import Collector
    from penstock.telemetry.readings import MetricReader, Sources
    from penstock.telemetry.spans import Spans, span_of

__all__ = ["METRICS", "Collector", "Instruments", "Metric", "MetricReader", "Sources", "Spans", "span_of"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "penstock.telemetry.names": ("METRICS", "Metric"),
            "penstock.telemetry.opentelemetry": ("Instruments",),
            "penstock.telemetry.prometheus": ("Collector",),
            "penstock.telemetry.readings": ("MetricReader", "Sources"),
            "penstock.telemetry.spans": ("Spans", "span_of"),
        },
    )
