"""Metric families between processes: as plain data, and merged again with a label for each worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["UP", "WORKER", "from_workers", "to_plain"]

WORKER = "worker"
UP = "penstock_worker_up"


def to_plain(families: Iterable[Any]) -> list[Any]:
    """Return families of prometheus_client as lists, for JSON."""
    return [[each.name, each.documentation, each.type, each.unit, [*map(_sample, each.samples)]] for each in families]


def _sample(sample: Any) -> list[Any]:
    exemplar = sample.exemplar and [sample.exemplar.labels, sample.exemplar.value, _seconds(sample.exemplar.timestamp)]
    # a float, as the text format writes it: a collector may use any type of number
    return [sample.name, sample.labels, float(sample.value), _seconds(sample.timestamp), exemplar]


def _seconds(timestamp: Any) -> float | None:
    return None if timestamp is None else float(timestamp)


def from_workers(answers: Mapping[str, list[Any] | None]) -> Iterator[Any]:
    """Yield families with the samples of all workers. For a worker without an answer `penstock_worker_up` is 0."""
    from prometheus_client.core import GaugeMetricFamily, Metric

    up = GaugeMetricFamily(UP, "1: the worker answered this scrape. 0: it did not, and its metrics are missing.")
    merged: dict[tuple[str, str], Any] = {}
    for worker, families in answers.items():
        up.samples.append(
            _sample_of(Metric(UP, "", "gauge"), [UP, {}, float(families is not None), None, None], worker)
        )
        for name, text, kind, unit, samples in families or ():
            family = merged.setdefault((name, kind), Metric(name, text, kind, unit))
            family.samples += [_sample_of(family, sample, worker) for sample in samples]
    yield up
    yield from merged.values()


def _sample_of(family: Any, plain: list[Any], worker: str) -> Any:
    from prometheus_client.core import Exemplar, Sample

    name, labels, value, timestamp, exemplar = plain
    if WORKER in labels:
        # Prometheus renames a target's label like this where it sets the label itself
        labels = {f"exported_{key}" if key == WORKER else key: text for key, text in labels.items()}
    return Sample(name, {**labels, WORKER: worker}, value, timestamp, exemplar and Exemplar(*exemplar))
