"""Metric families between processes: as plain data, and those of all workers on one page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock.integrations.metrics.totals import is_summed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["UP", "WORKER", "from_plain", "merged", "plain_family", "to_plain", "without_summed"]

WORKER = "worker"
UP = "penstock_worker_up"
UP_TEXT = "1: the worker answered this scrape. 0: it did not: its gauges are missing, its counters are as it last said."


def to_plain(families: Iterable[Any]) -> list[Any]:
    """Return families of prometheus_client as lists, for JSON."""
    return [[each.name, each.documentation, each.type, each.unit, [*map(_sample, each.samples)]] for each in families]


def _sample(sample: Any) -> list[Any]:
    exemplar = sample.exemplar and [sample.exemplar.labels, sample.exemplar.value, _seconds(sample.exemplar.timestamp)]
    # a float, as the text format writes it: a collector may use any type of number
    return [sample.name, sample.labels, float(sample.value), _seconds(sample.timestamp), exemplar]


def _seconds(timestamp: Any) -> float | None:
    return None if timestamp is None else float(timestamp)


def plain_family(name: str, text: str, kind: str, samples: Iterable[tuple[Mapping[str, str], float]]) -> list[Any]:
    """Return a plain family of type `gauge` or `counter` from labels with values, without prometheus-client.

    A counter's `name` is without `_total`.
    """
    sample_name = f"{name}_total" if kind == "counter" else name
    return [name, text, kind, "", [[sample_name, dict(labels), float(value), None, None] for labels, value in samples]]


def from_plain(families: Iterable[list[Any]]) -> Iterator[Any]:
    """Yield plain families as those of prometheus_client."""
    from prometheus_client.core import Exemplar, Metric, Sample

    for name, text, kind, unit, samples in families:
        family = Metric(name, text, kind, unit)
        family.samples = [
            Sample(sample_name, labels, value, timestamp, exemplar and Exemplar(*exemplar))
            for sample_name, labels, value, timestamp, exemplar in samples
        ]
        yield family


def without_summed(families: Iterable[list[Any]]) -> list[list[Any]]:
    """Return the families with those samples alone that are not added up over the workers."""
    found = []
    for name, text, kind, unit, samples in families:
        rest = [each for each in samples if not is_summed(kind, each[0][len(name) :])]
        if rest:
            found.append([name, text, kind, unit, rest])
    return found


def merged(totals: Iterable[list[Any]], answers: Mapping[str, list[Any] | None]) -> list[list[Any]]:
    """Return the page of all workers: totals, and each worker's other samples with its label.

    For a worker without an answer `penstock_worker_up` is 0.
    """
    up = plain_family(UP, UP_TEXT, "gauge", [({WORKER: each}, found is not None) for each, found in answers.items()])
    page = {(family[0], family[2]): family for family in totals}
    for worker, families in answers.items():
        for name, text, kind, unit, samples in families or ():
            family = page.setdefault((name, kind), [name, text, kind, unit, []])
            family[4] += [_of_worker(sample, worker) for sample in samples]
    return [up, *page.values()]


def _of_worker(sample: list[Any], worker: str) -> list[Any]:
    name, labels, *rest = sample
    own = WORKER
    while own in labels:
        # Prometheus renames a target's label like this where it sets the label itself
        own = f"exported_{own}"
    renamed = {own if key == WORKER else key: text for key, text in labels.items()}
    return [name, {**renamed, WORKER: worker}, *rest]
