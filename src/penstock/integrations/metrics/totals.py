"""Totals of the workers' counters, histograms and summaries: sums that no end of a worker takes away.

A total grows by what each answer of a worker has more than that worker's answer before. So a worker that ends needs no
more memory, and what it has counted stays. A value that is lower than before is a restarted count, as Prometheus reads
it. Sums are exact, since rounding could make a total fall.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["MOST_LAYOUTS", "MOST_VALUES", "SeriesTotals", "WorkerCounts"]

# some 20 MB in the parent
MOST_VALUES = 50_000
# a family's histograms with other buckets than these have no bucket but the last
MOST_LAYOUTS = 8
BUCKETS_LABEL = "penstock_buckets"
CREATED = "_created"
# the samples that are added up, by the family's type: the rest of a name after the family's
SUMMED = {
    "counter": {"", "_total"},
    "histogram": {"_bucket", "_count", "_sum"},
    "summary": {"_count", "_sum"},
}

Number = int | Fraction | float
# the rest of a sample's name, and its bucket's bound
Place = tuple[str, str]
# a family's name and type, the labels without a bucket's bound
SeriesKey = tuple[str, str, tuple[tuple[str, str], ...]]


@dataclass(slots=True)
class CountedSeries:
    """The cumulative samples of one label set: exact in a total, as they came in an answer."""

    values: dict[Place, Any] = field(default_factory=dict)
    created_s: float | None = None
    exemplars: dict[Place, list[Any]] = field(default_factory=dict)


class WorkerCounts:
    """The counts of one worker at its last answer, by page. The channel of the worker owns them."""

    def __init__(self) -> None:
        self.last: dict[str, dict[SeriesKey, CountedSeries]] = {}
        # the series of the last answer
        self.held: dict[str, set[SeriesKey]] = {}
        # samples of the last answer for which there was no room
        self.left_out: dict[str, int] = {}


class SeriesTotals:
    """The totals of all workers, by page: the key of a registry. At most `most_values` samples are kept.

    Beyond that the series go that no living worker has, those first that were new first; then new ones are left out.
    """

    def __init__(self, most_values: int = MOST_VALUES) -> None:
        self._most_values = most_values
        self._count = 0
        self._pages: dict[str, dict[SeriesKey, CountedSeries]] = {}
        # each family's documentation and unit
        self._texts: dict[tuple[str, str, str], tuple[str, str]] = {}
        # each family's sets of bounds, in the order of their appearance
        self._layouts: dict[tuple[str, str], list[tuple[str, ...]]] = {}

    def __len__(self) -> int:
        return self._count

    def account(self, page: str, families: list[Any], worker: WorkerCounts, living: Iterable[WorkerCounts]) -> None:
        """Add what the worker has counted since its last answer. `living` are all workers, this one among them."""
        found: dict[SeriesKey, CountedSeries] = {}
        texts = {(name, kind): (text, unit) for name, text, kind, unit, _ in families}
        for name, _, kind, _, samples in families:
            if kind in SUMMED:
                found.update(self._series(page, name, kind, samples))
        totals, before = self._pages.setdefault(page, {}), worker.last.setdefault(page, {})
        worker.held[page], worker.left_out[page] = set(found), 0
        for key, series in found.items():
            if key not in totals and not self._has_room(len(series.values), living, worker.left_out[page] == 0):
                worker.left_out[page] += len(series.values)
                continue
            total = totals.setdefault(key, CountedSeries())
            self._count -= len(total.values)
            _add(total, series, before.get(key))
            self._count += len(total.values)
            before[key] = series
            self._texts[page, key[0], key[1]] = texts[key[:2]]

    def families(self, page: str) -> Iterator[list[Any]]:
        """Yield the totals as plain families."""
        found: dict[tuple[str, str], list[Any]] = {}
        for (name, kind, labels), total in self._pages.get(page, {}).items():
            text, unit = self._texts[page, name, kind]
            family = found.setdefault((name, kind), [name, text, kind, unit, []])
            family[4] += _samples(name, dict(labels), total)
        yield from found.values()

    def _series(self, page: str, name: str, kind: str, samples: list[Any]) -> dict[SeriesKey, CountedSeries]:
        """Return the cumulative samples of one family of a worker by label set."""
        found: dict[tuple[tuple[str, str], ...], CountedSeries] = {}
        for sample_name, labels, value, _, exemplar in samples:
            suffix = sample_name[len(name) :]
            bound = labels.get("le", "") if suffix == "_bucket" else ""
            if not is_summed(kind, suffix):
                continue
            own = tuple(sorted((key, text) for key, text in labels.items() if key != "le" or not bound))
            series = found.setdefault(own, CountedSeries())
            if suffix == CREATED:
                series.created_s = value
                continue
            series.values[suffix, bound] = value
            if exemplar:
                series.exemplars[suffix, bound] = exemplar
        if kind != "histogram":
            return {(name, kind, labels): series for labels, series in found.items()}
        return {(name, kind, self._by_layout(page, name, labels, series)): series for labels, series in found.items()}

    def _by_layout(
        self, page: str, name: str, labels: tuple[tuple[str, str], ...], series: CountedSeries
    ) -> tuple[tuple[str, str], ...]:
        """Return the labels with one for the buckets, unless they are the family's first. Cut those beyond the most."""
        layouts = self._layouts.setdefault((page, name), [])
        bounds = tuple(bound for suffix, bound in series.values if suffix == "_bucket")
        if bounds not in layouts and len(layouts) < MOST_LAYOUTS:
            layouts.append(bounds)
        if bounds in layouts:
            number = layouts.index(bounds) + 1
            return labels if number == 1 else (*labels, (BUCKETS_LABEL, str(number)))
        series.values = {place: value for place, value in series.values.items() if place[1] in {"", "+Inf"}}
        return *labels, (BUCKETS_LABEL, "other")

    def _has_room(self, count: int, living: Iterable[WorkerCounts], may_remove: bool) -> bool:
        """Return whether there is room for so many more samples, after removing series of ended workers if needed."""
        if self._count + count > self._most_values and may_remove:
            # some more than needed, so that not each new series walks over all
            self._remove_ended([*living], self._most_values * 9 // 10 - count)
        return self._count + count <= self._most_values

    def _remove_ended(self, living: list[WorkerCounts], goal: int) -> None:
        """Remove series that no living worker has until at most `goal` samples are kept."""
        for page, totals in self._pages.items():
            held = set().union(*(worker.held.get(page, ()) for worker in living))
            for key in [key for key in totals if key not in held]:
                if self._count > goal:
                    self._count -= len(totals.pop(key).values)
                    for worker in living:
                        worker.last.get(page, {}).pop(key, None)
        names = {(page, key[0]) for page, totals in self._pages.items() for key in totals}
        self._layouts = {each: kept for each, kept in self._layouts.items() if each in names}
        self._texts = {each: kept for each, kept in self._texts.items() if each[:2] in names}


def is_summed(kind: str, suffix: str) -> bool:
    """Return whether samples of this name are added up over the workers, or are the time since when they count."""
    return kind in SUMMED and (suffix in SUMMED[kind] or suffix == CREATED)


def _add(total: CountedSeries, series: CountedSeries, before: CountedSeries | None) -> None:
    """Add to a total what the series has more than before, or all of it if it counts anew."""
    if before is None or _counts_anew(series, before):
        before = CountedSeries()
    for place, value in series.values.items():
        known = before.values.get(place, 0.0)
        more = 0 if value == known else _sum(_exact(value), -_exact(known))
        total.values[place] = _sum(total.values.get(place, 0), more)
    if series.created_s is not None:
        total.created_s = min(series.created_s, math.inf if total.created_s is None else total.created_s)
    for place, exemplar in series.exemplars.items():
        known_exemplar = total.exemplars.get(place)
        if known_exemplar is None or (exemplar[2] or 0.0) >= (known_exemplar[2] or 0.0):
            total.exemplars[place] = exemplar


def _counts_anew(series: CountedSeries, before: CountedSeries) -> bool:
    if series.created_s is not None and before.created_s is not None and series.created_s > before.created_s:
        return True
    # a sum of observations may fall, if some are negative; counts may not
    counts = ((place, value) for place, value in series.values.items() if place[0] != "_sum")
    return any(value < before.values.get(place, 0.0) for place, value in counts)


def _exact(value: float) -> Number:
    if not math.isfinite(value):
        return value
    return int(value) if value.is_integer() else Fraction(value)


def _sum(one: Number, other: Number) -> Number:
    """Return an exact sum, or a float's where one is infinite or no number."""
    if isinstance(one, float) or isinstance(other, float):
        return _rounded(one) + _rounded(other)
    return one + other


def _rounded(number: Number) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def _samples(name: str, labels: dict[str, str], total: CountedSeries) -> Iterator[list[Any]]:
    for (suffix, bound), value in total.values.items():
        own = {**labels, "le": bound} if bound else labels
        yield [name + suffix, own, _rounded(value), None, total.exemplars.get((suffix, bound))]
    if total.created_s is not None:
        yield [name + CREATED, labels, total.created_s, None, None]
