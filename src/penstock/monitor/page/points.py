"""Points of the charts: what two snapshots of a process, one after the other, say about the time between them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from penstock.times import Times, merged, since

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["PagePoint", "merged_point", "point_between"]

Answer = dict[str, Any]
# sites of a point; the page draws fewer
MOST_SITES = 12


@dataclass(frozen=True, slots=True)
class PagePoint:
    """The figures of one moment. Rates are per second since the snapshot before; None means unknown.

    `lanes` has busy, queued and the limit by name, `gates` goodput and sheds. `blocked_s` is the age of a callback that
    runs right now and takes long, `is_partial` says that the GIL was held.
    """

    at_s: float
    delay: Times | None = None
    utilization: float | None = None
    live: int | None = None
    sites: Mapping[str, int] = field(default_factory=dict)
    lanes: Mapping[str, tuple[int, int, int | None]] = field(default_factory=dict)
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


def point_between(before: Answer | None, now: Answer) -> PagePoint:
    """Return the point of a snapshot. A partial one has only what is known without the GIL."""
    loops = _loops(now)
    earlier = {loop.get("thread_id"): loop for loop in _loops(before or {})}
    pairs = [(earlier.get(loop.get("thread_id"), {}), loop) for loop in loops]
    span_s = _number(now, "at_s") - _number(before or {}, "at_s") if before else 0.0
    at_s = _number(now, "wall_time_s")
    blocked_s = max((blocked for loop in loops if (blocked := _blocked_s(loop)) is not None), default=None)
    if now.get("partial"):
        return PagePoint(at_s, utilization=None if blocked_s is None else 1.0, blocked_s=blocked_s, is_partial=True)
    process = now.get("process") or {}
    return PagePoint(
        at_s,
        delay=merged(_between(old.get("delay"), loop.get("delay")) for old, loop in pairs),
        utilization=_utilization(pairs, blocked_s),
        live=sum(int((loop.get("tasks") or {}).get("live") or 0) for loop in loops),
        sites=_sites(loops),
        lanes=_lanes(loops),
        gates=_gates(before or {}, now, span_s),
        rss_bytes=process.get("rss_bytes"),
        cpu=_rate((before or {}).get("process") or {}, process, "cpu_s", span_s),
        blocked_s=blocked_s,
    )


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


def _loops(answer: Answer) -> list[Answer]:
    return [loop for loop in answer.get("loops") or [] if isinstance(loop, dict)]


def _number(answer: Answer, key: str) -> float:
    value = answer.get(key)
    return float(value) if isinstance(value, int | float) else 0.0


def _blocked_s(loop: Answer) -> float | None:
    blocked = loop.get("blocked")
    return _number(blocked, "lasted_s") if isinstance(blocked, dict) else None


def _times(answer: Answer | None) -> Times:
    if not answer:
        return Times()
    buckets = tuple((int(index), int(count)) for index, count in answer.get("buckets") or ())
    return Times(int(answer.get("count") or 0), _number(answer, "total_s"), _number(answer, "max_s"), buckets)


def _between(before: Answer | None, now: Answer | None) -> Times:
    later, earlier = _times(now), _times(before)
    # a loop that took the place of another one counts from zero
    return since(later, earlier) if later.count >= earlier.count else later


def _utilization(pairs: list[tuple[Answer, Answer]], blocked_s: float | None) -> float | None:
    """Return the busiest loop's share of time outside of polls. A callback that still runs counts as busy."""
    shares = []
    for before, now in pairs:
        active_s = _number(now, "active_s") - _number(before, "active_s")
        idle_s = _number(now, "idle_s") - _number(before, "idle_s")
        if active_s + idle_s > 0:
            shares.append(min(1.0, max(0.0, active_s / (active_s + idle_s))))
    if blocked_s is not None:
        shares.append(1.0)
    return max(shares, default=None)


def _sites(loops: list[Answer]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for loop in loops:
        for row in loop.get("sites") or ():
            counts[_site_text(row.get("site"))] += int(row.get("live") or 0)
    return {name: count for name, count in counts.most_common(MOST_SITES) if count}


def _site_text(site: Any) -> str:
    if not isinstance(site, dict):
        return str(site) if site else "unknown site"
    file = str(site.get("file") or "?").rpartition("/")[2]
    return f"{site.get('function') or '?'} ({file}:{site.get('line') or '?'})"


def _lanes(loops: list[Answer]) -> dict[str, tuple[int, int, int | None]]:
    lanes: dict[str, tuple[int, int, int | None]] = {}
    for loop in loops:
        for lane in loop.get("lanes") or ():
            busy, queued, limit = lanes.get(str(lane.get("name")), (0, 0, None))
            busy += int(lane.get("workers_busy") or lane.get("running") or 0)
            lanes[str(lane.get("name"))] = (
                busy,
                queued + int(lane.get("queued") or 0),
                _sum((limit, lane.get("workers_limit"))),
            )
    return lanes


def _gates(before: Answer, now: Answer, span_s: float) -> dict[str, tuple[float, float]]:
    earlier = {gate.get("name"): gate for gate in before.get("gates") or ()}
    rates = {}
    for gate in now.get("gates") or ():
        old = earlier.get(gate.get("name"))
        if old is None or span_s <= 0:
            rates[str(gate.get("name"))] = (0.0, 0.0)
            continue
        sheds = sum((gate.get("sheds") or {}).values()) - sum((old.get("sheds") or {}).values())
        goodput = _rate(old, gate, "finished", span_s) or 0.0
        rates[str(gate.get("name"))] = (goodput, max(0.0, sheds / span_s))
    return rates


def _rate(before: Answer, now: Answer, key: str, span_s: float) -> float | None:
    if span_s <= 0 or key not in before or key not in now:
        return None
    return max(0.0, (_number(now, key) - _number(before, key)) / span_s)


def _total(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return total


def _merged_lanes(points: list[PagePoint]) -> dict[str, tuple[int, int, int | None]]:
    lanes: dict[str, tuple[int, int, int | None]] = {}
    for point in points:
        for name, (busy, queued, limit) in point.lanes.items():
            old = lanes.get(name, (0, 0, None))
            lanes[name] = old[0] + busy, old[1] + queued, _sum((old[2], limit))
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
