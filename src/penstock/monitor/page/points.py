"""Points of the charts: the figures of an interval in the form that the page draws."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from penstock.times import Times, merged

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from penstock.monitor.figures import Figures, LaneRates, LoopRates
    from penstock.tasks.place import Place

__all__ = ["PagePoint", "merged_point", "point_of", "with_gauges"]

Answer = dict[str, Any]
# busy, queued, and the limit of workers
LaneFigures = tuple[int, int, int | None]
# sites of a point; the page draws fewer
MOST_SITES = 12


@dataclass(frozen=True, slots=True)
class PagePoint:
    """The figures of one moment; None means unknown.

    `lanes` has busy, queued and the limit by name, `gates` goodput and sheds. `blocked_s` is the age of a callback that
    runs right now and takes long, `is_partial` says that the GIL was held.
    """

    at_s: float
    delay: Times | None = None
    utilization: float | None = None
    live: int | None = None
    sites: Mapping[str, int] = field(default_factory=dict)
    lanes: Mapping[str, LaneFigures] = field(default_factory=dict)
    gates: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    rss_bytes: int | None = None
    cpu: float | None = None
    blocked_s: float | None = None
    is_partial: bool = False

    def as_json(self) -> Answer:
        """Return the point for the page. A loop that is blocked has at least that delay."""
        delay = self.delay
        known = delay is not None and delay.count > 0
        p50_s = delay.p50_s if delay is not None and known else None
        p99_s = delay.p99_s if delay is not None and known else None
        if self.blocked_s is not None:
            p99_s = max(p99_s or 0.0, self.blocked_s)
        return {
            "at_s": round(self.at_s, 3),
            "p50_s": _rounded(p50_s, 6),
            "p99_s": _rounded(p99_s, 6),
            "utilization": _rounded(self.utilization, 4),
            "live": self.live,
            "sites": dict(self.sites),
            "lanes": {name: list(figures) for name, figures in self.lanes.items()},
            "gates": {name: [round(rate, 1) for rate in rates] for name, rates in self.gates.items()},
            "rss_bytes": self.rss_bytes,
            "cpu": _rounded(self.cpu, 3),
            "blocked_s": _rounded(self.blocked_s, 3),
            "partial": self.is_partial,
        }


def point_of(found: Figures) -> PagePoint:
    """Return the point of the figures of an interval. A partial answer has only what is known without the GIL."""
    lasted_s = [loop.blocked.lasted_s for loop in found.loops if loop.blocked is not None]
    blocked_s = max(lasted_s, default=None)
    if found.partial:
        utilization = None if blocked_s is None else 1.0
        return PagePoint(found.wall_time_s, utilization=utilization, blocked_s=blocked_s, is_partial=True)
    return PagePoint(
        found.wall_time_s,
        delay=merged(loop.delay for loop in found.loops),
        utilization=max((loop.utilization for loop in found.loops), default=None),
        live=sum(loop.tasks_live for loop in found.loops),
        sites=_sites(found.loops),
        lanes=_lanes(lane for loop in found.loops for lane in loop.lanes),
        gates={gate.name: (gate.goodput_per_s, gate.sheds_per_s) for gate in found.gates},
        rss_bytes=found.process.rss_bytes,
        cpu=found.process.cores_used,
        blocked_s=blocked_s,
    )


def with_gauges(partial: PagePoint, whole: PagePoint) -> PagePoint:
    """Return a partial point with the slow figures of the last whole one: a sum over workers then has no step."""
    return replace(partial, live=whole.live, sites=whole.sites, lanes=whole.lanes, rss_bytes=whole.rss_bytes)


def merged_point(points: Iterable[PagePoint]) -> PagePoint | None:
    """Return the point of several processes at once: sums, the mean utilization, one distribution of delays."""
    every = list(points)
    if not every:
        return None
    utilizations = [point.utilization for point in every if point.utilization is not None]
    return PagePoint(
        max(point.at_s for point in every),
        delay=merged(point.delay for point in every if point.delay is not None),
        utilization=sum(utilizations) / len(utilizations) if utilizations else None,
        live=_sum(point.live for point in every),
        sites=dict(_total(point.sites for point in every).most_common(MOST_SITES)),
        lanes=_merged_lanes(every),
        gates=_merged_gates(every),
        rss_bytes=_sum(point.rss_bytes for point in every),
        cpu=_sum(point.cpu for point in every),
        blocked_s=max((point.blocked_s for point in every if point.blocked_s is not None), default=None),
        is_partial=any(point.is_partial for point in every),
    )


def _sites(loops: Iterable[LoopRates]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for loop in loops:
        for row in loop.sites:
            counts[_site_text(row.site)] += row.live
    return {name: count for name, count in counts.most_common(MOST_SITES) if count}


def _site_text(site: Place | None) -> str:
    if site is None:
        return "unknown site"
    return f"{site.function} ({site.file.rpartition('/')[2]}:{site.line})"


def _lanes(rates: Iterable[LaneRates]) -> dict[str, LaneFigures]:
    lanes: dict[str, LaneFigures] = {}
    for lane in rates:
        busy = lane.workers_busy or lane.running
        lanes[lane.name] = _with_lane(lanes.get(lane.name), (busy, lane.queued, lane.workers_limit or None))
    return lanes


def _with_lane(before: LaneFigures | None, added: LaneFigures) -> LaneFigures:
    if before is None:
        return added
    return before[0] + added[0], before[1] + added[1], _sum((before[2], added[2]))


def _total(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return total


def _merged_lanes(points: list[PagePoint]) -> dict[str, LaneFigures]:
    lanes: dict[str, LaneFigures] = {}
    for point in points:
        for name, figures in point.lanes.items():
            lanes[name] = _with_lane(lanes.get(name), figures)
    return lanes


def _merged_gates(points: list[PagePoint]) -> dict[str, tuple[float, float]]:
    gates: dict[str, tuple[float, float]] = {}
    for point in points:
        for name, (goodput, sheds) in point.gates.items():
            old = gates.get(name, (0.0, 0.0))
            gates[name] = old[0] + goodput, old[1] + sheds
    return gates


def _sum(values: Iterable[Any]) -> Any:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
