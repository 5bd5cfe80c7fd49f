"""Tasks by site for exporters: the busiest sites by name, all others as "other".

An exported counter must never fall. So a site that rises into the top counts only new tasks under its name, and "other"
keeps its earlier ones. Bounded by the number of sites in the sources.
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
    """A site: the property of `penstock.tasks.Place` that is used here."""

    @property
    def label(self) -> str:
        """The name, the same in every deployment."""


class SiteFigures(Protocol):
    """The tasks of a site: the fields of `penstock.tasks.SiteStatistics` that are used here."""

    @property
    def site(self) -> Labelled:
        """The site as a place."""

    @property
    def created(self) -> int:
        """Tasks made at the site."""

    @property
    def completed(self) -> int:
        """Tasks that returned."""

    @property
    def failed(self) -> int:
        """Tasks that raised."""

    @property
    def cancelled(self) -> int:
        """Tasks that were cancelled."""

    @property
    def live(self) -> int:
        """Tasks that have not ended."""

    @property
    def running_s(self) -> float:
        """Time for which the tasks ran, in seconds."""

    @property
    def ready_s(self) -> float:
        """Time for which the tasks were ready to run, in seconds."""


@dataclass(slots=True)
class SiteCounts:
    """The counts of one site or of several."""

    created: float = 0
    completed: float = 0
    failed: float = 0
    cancelled: float = 0
    running_s: float = 0.0
    ready_s: float = 0.0
    live: int = 0

    def add(self, more: SiteFigures | SiteCounts, before: SiteCounts | None = None) -> None:
        """Add the counts of `more` less those of `before`."""
        for name in COUNTERS:
            had = 0 if before is None else getattr(before, name)
            setattr(self, name, getattr(self, name) + getattr(more, name) - had)
        self.live += more.live


class TopSites:
    """The counts of at most `most` sites by name, and of the others together. Thread-safe: exporters share it."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._top: set[str] = set()
        # (loop, site) -> its counts at the last reading; (loop, site or "other") -> its exported counts
        self._seen: dict[tuple[str, str], SiteCounts] = {}
        self._shown: dict[tuple[str, str], SiteCounts] = {}

    def take(self, sites: Mapping[str, Sequence[SiteFigures]]) -> list[tuple[str, str, SiteCounts]]:
        """Return the counts to export, as (loop, site or "other", counts)."""
        with self._lock:
            now = _summed(sites)
            self._choose(now)
            self._shown = {key: counts for key, counts in self._shown.items() if self._is_kept(key, sites)}
            for counts in self._shown.values():
                counts.live = 0
            for (loop, site), counts in now.items():
                self._count(loop, site, counts)
            self._seen = now
            return [(*key, _copy(counts)) for key, counts in self._shown.items()]

    def _count(self, loop: str, site: str, counts: SiteCounts) -> None:
        before = self._seen.get((loop, site))
        if before is not None and counts.created < before.created:
            before = None  # another loop of the same name
        label = site if site in self._top else OTHER
        self._shown.setdefault((loop, label), SiteCounts()).add(counts, before)

    def _is_kept(self, key: tuple[str, str], sites: Mapping[str, object]) -> bool:
        loop, label = key
        return loop in sites and (label == OTHER or label in self._top)

    def _choose(self, now: Mapping[tuple[str, str], SiteCounts]) -> None:
        """Choose the sites with a name of their own. A site displaces another with less than half as many tasks."""
        made: Counter[str] = Counter()
        for (_, site), counts in now.items():
            made[site] += int(counts.created)
        self._top &= made.keys()
        for site, count in made.most_common():
            if site == OTHER or site in self._top:
                continue
            if len(self._top) >= self._most:
                least = min(self._top, key=lambda name: made[name])
                if count <= 2 * made[least]:
                    return
                self._top.remove(least)
            self._top.add(site)


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
