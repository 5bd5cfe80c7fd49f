"""Tasks by where they are made, for exporters: the busiest places under their own names, the rest as one, "other".

A counter that an exporter shows must never go down. So a place that rises into the top counts from there on only what
is new, and "other" keeps what it had. Bounded by the sites that the sources know.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from penstock.telemetry.names import OTHER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Labelled", "SiteCounts", "SiteFigures", "TopSites"]

COUNTERS = ("created", "completed", "failed", "cancelled", "running_s", "ready_s")


class Labelled(Protocol):
    """A place in code: `penstock.tasks.Place`, of which this is used."""

    @property
    def label(self) -> str:
        """Its name, the same in each deployment."""


class SiteFigures(Protocol):
    """The tasks made at one place: `penstock.tasks.records.SiteStatistics`, of which these are used."""

    @property
    def site(self) -> Labelled:
        """The place."""

    @property
    def created(self) -> int:
        """Tasks made there."""

    @property
    def completed(self) -> int:
        """Of these: returned."""

    @property
    def failed(self) -> int:
        """Of these: raised."""

    @property
    def cancelled(self) -> int:
        """Of these: cancelled."""

    @property
    def live(self) -> int:
        """Of these: not ended."""

    @property
    def running_s(self) -> float:
        """How long they ran."""

    @property
    def ready_s(self) -> float:
        """How long they were ready to."""


@dataclass(slots=True)
class SiteCounts:
    """A place's counts, or those of several."""

    created: float = 0
    completed: float = 0
    failed: float = 0
    cancelled: float = 0
    running_s: float = 0.0
    ready_s: float = 0.0
    live: int = 0

    def add(self, more: SiteFigures | SiteCounts, before: SiteCounts | None = None) -> None:
        """Count what `more` has, less what it had before."""
        for name in COUNTERS:
            had = 0 if before is None else getattr(before, name)
            setattr(self, name, getattr(self, name) + getattr(more, name) - had)
        self.live += more.live


class TopSites:
    """Keeps at most `most` places apart. Thread-safe, since several exporters may read."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._top: set[str] = set()
        # (loop, place) -> what it had when last asked; (loop, place or "other") -> what is shown for it
        self._seen: dict[tuple[str, str], SiteCounts] = {}
        self._shown: dict[tuple[str, str], SiteCounts] = {}

    def take(self, sites: Mapping[str, Sequence[SiteFigures]]) -> list[tuple[str, str, SiteCounts]]:
        """What to show: loop, place or "other", and counts."""
        with self._lock:
            now = _summed(sites)
            self._choose(now)
            self._shown = {key: counts for key, counts in self._shown.items() if self._is_kept(key, sites)}
            for counts in self._shown.values():
                counts.live = 0
            for (loop, place), counts in now.items():
                self._count(loop, place, counts)
            self._seen = now
            return [(*key, _copy(counts)) for key, counts in self._shown.items()]

    def _count(self, loop: str, place: str, counts: SiteCounts) -> None:
        before = self._seen.get((loop, place))
        if before is not None and counts.created < before.created:
            before = None  # another loop of the same name
        label = place if place in self._top else OTHER
        self._shown.setdefault((loop, label), SiteCounts()).add(counts, before)

    def _is_kept(self, key: tuple[str, str], sites: Mapping[str, object]) -> bool:
        loop, label = key
        return loop in sites and (label == OTHER or label in self._top)

    def _choose(self, now: Mapping[tuple[str, str], SiteCounts]) -> None:
        """Fill the places that are free; a taken one goes to whoever has made twice as many tasks as its owner."""
        made: Counter[str] = Counter()
        for (_, place), counts in now.items():
            made[place] += int(counts.created)
        self._top &= made.keys()
        for place, count in made.most_common():
            if place == OTHER or place in self._top:
                continue
            if len(self._top) >= self._most:
                least = min(self._top, key=lambda owner: made[owner])
                if count <= 2 * made[least]:
                    return
                self._top.remove(least)
            self._top.add(place)


def _copy(counts: SiteCounts) -> SiteCounts:
    copied = SiteCounts()
    copied.add(counts)
    return copied


def _summed(sites: Mapping[str, Sequence[SiteFigures]]) -> dict[tuple[str, str], SiteCounts]:
    summed: dict[tuple[str, str], SiteCounts] = {}
    for loop, found in sites.items():
        for one in found:
            summed.setdefault((loop, one.site.label), SiteCounts()).add(one)
    return summed
