"""The Prometheus exporter: a collector that makes metric families of the readings at each scrape. Extra `prometheus`.

Histograms are exported with the bounds of `names.BOUNDS_S`. Nothing is recorded between scrapes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock.telemetry.names import BOUNDS_S, METRICS, Metric, prometheus_label
from penstock.telemetry.readings import MetricReader, Sources
from penstock.times import Times

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from penstock.telemetry.readings import Values

__all__ = ["Collector"]


class Collector:
    """A collector for a `prometheus_client.CollectorRegistry`: `registry.register(Collector(sources))`.

    `bounds_s` are the histograms' bounds in seconds, ascending; `most_sites` and `process` are as for `MetricReader`.
    Raises ImportError if prometheus-client is not installed.
    """

    def __init__(
        self,
        sources: Sources,
        *,
        bounds_s: Sequence[float] = BOUNDS_S,
        most_sites: int = 50,
        process: bool = True,
    ) -> None:
        self._families = _families()
        self._readings = MetricReader(sources, most_sites=most_sites, process=process)
        self._bounds_s = tuple(bounds_s)
        self._bound_labels = [*map(str, map(float, self._bounds_s)), "+Inf"]

    def describe(self) -> Iterator[Any]:
        """Yield the families without values. A registry checks their names for clashes."""
        for metric in METRICS.values():
            yield self._family(metric)

    def collect(self) -> Iterator[Any]:
        """Yield the families that have values now."""
        for name, values in self._readings.take().items():
            yield self._filled(METRICS[name], values)

    def _family(self, metric: Metric) -> Any:
        labels = [prometheus_label(attribute) for attribute in metric.attributes]
        made = self._families[metric.instrument]
        return made(metric.prometheus_family, metric.help, labels=labels, unit=metric.prometheus_unit)

    def _filled(self, metric: Metric, values: Values) -> Any:
        family = self._family(metric)
        for labels, value in values.items():
            if isinstance(value, Times):
                counts = [*value.cumulative(self._bounds_s), value.count]
                family.add_metric(labels, list(zip(self._bound_labels, counts, strict=True)), value.total_s)
            else:
                family.add_metric(labels, value)
        return family


def _families() -> dict[str, Any]:
    """Return the class of the metric family for each instrument."""
    try:
        from prometheus_client import core
    except ImportError:
        raise ImportError("Prometheus's metrics need prometheus-client: pip install 'penstock[prometheus]'") from None
    gauge = core.GaugeMetricFamily
    return {
        "counter": core.CounterMetricFamily,
        "gauge": gauge,
        "updowncounter": gauge,
        "histogram": core.HistogramMetricFamily,
    }
