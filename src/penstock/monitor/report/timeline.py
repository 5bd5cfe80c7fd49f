"""The two seconds before a finding, as a picture and a sentence: the steps, the incidents and the jobs."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from penstock.monitor.report.charts import short
from penstock.monitor.report.markup import Markup, joined, tag
from penstock.monitor.texts import count_text, duration, share_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from penstock.monitor.report.trace import Slice, TraceLoop

__all__ = ["BEFORE_S", "timeline"]

BEFORE_S = 2.0
# the shown part of a finding that lasts
MOST_AFTER_S = 2.0
LEAST_AFTER_S = 0.1
LEFT, WIDTH, ROW, GAP, TOP = 84, 880, 26, 8, 16
COLUMNS = WIDTH - LEFT
# slices that are drawn one by one, with their names: the longest
MOST_NAMED = 40
LEAST_NAMED_PX = 1.5
MOST_LISTED = 5
ROWS = (("steps", ("step", "callback")), ("incidents", ("stall", "gc", "shed", "finding")), ("jobs", ("job",)))


class _Span:
    """The span of the picture: times to columns."""

    def __init__(self, at_s: float, lasted_s: float) -> None:
        self.at_s = at_s
        self.begin_s = at_s - BEFORE_S
        self.end_s = at_s + min(max(lasted_s, LEAST_AFTER_S), MOST_AFTER_S)
        self.scale = COLUMNS / (self.end_s - self.begin_s)

    def x(self, at_s: float) -> float:
        return LEFT + (min(max(at_s, self.begin_s), self.end_s) - self.begin_s) * self.scale

    def inside(self, slices: Sequence[Slice]) -> list[Slice]:
        return [each for each in slices if each.end_s >= self.begin_s and each.at_s <= self.end_s]


def timeline(loop: TraceLoop, at_s: float, lasted_s: float = 0.0, begin_s: float = 0.0) -> Markup | None:
    """Return the timeline of the two seconds before `at_s` and of the time after it; None without an event in it.

    The trace has events from `begin_s` on.
    """
    span = _Span(at_s, lasted_s)
    shown = span.inside(loop.slices)
    if not shown:
        return None
    rows = [(label, [each for each in shown if each.kind in kinds]) for label, kinds in ROWS]
    height = TOP + len(rows) * (ROW + GAP) + 18
    parts = [part for number, (label, slices) in enumerate(rows) for part in _row(number, label, slices, span)]
    mark = span.x(at_s)
    picture = tag(
        "svg",
        *parts,
        *_axis(span, height),
        tag("line", x1=_px(mark), x2=_px(mark), y1=2, y2=height - 18, class_="mark"),
        viewBox=f"0 0 {WIDTH + 4} {height}",
        role="img",
        aria_label="The two seconds before the finding",
    )
    return tag(
        "figure", picture, tag("figcaption", _late_begin(begin_s, at_s), _sentence(rows, span)), class_="timeline"
    )


def _row(number: int, label: str, slices: Sequence[Slice], span: _Span) -> Iterator[Markup]:
    top = TOP + number * (ROW + GAP)
    yield tag("text", label, x=LEFT - 8, y=top + ROW - 8, text_anchor="end")
    yield tag("line", x1=LEFT, x2=WIDTH, y1=top + ROW, y2=top + ROW, class_="grid")
    named = sorted(slices, key=lambda each: each.took_s, reverse=True)[:MOST_NAMED]
    named = [each for each in named if each.took_s * span.scale >= LEAST_NAMED_PX or label == "incidents"]
    known = {id(each) for each in named}
    density = _density([each for each in slices if id(each) not in known], span)
    if any(density):
        yield tag("path", d=_area(density, top), class_=f"busy {label}")
    for each in named:
        yield _box(each, top, span)


def _box(each: Slice, top: int, span: _Span) -> Markup:
    left, right = span.x(each.at_s), span.x(each.end_s)
    kind = each.kind if each.kind in ("stall", "gc", "shed", "finding", "job") else "step"
    took = f", {duration(each.took_s)}" if each.took_s else ""
    title = tag("title", f"{each.kind}: {each.name}{took}, {_when(each.at_s - span.at_s)}")
    width = max(right - left, 1.5)
    return tag("rect", title, x=_px(left), y=top + 2, width=_px(width), height=ROW - 2, class_=f"box {kind}")


def _density(slices: Sequence[Slice], span: _Span) -> list[float]:
    """Return for each column the share of its time for which one of the slices ran, at most 1."""
    shares = [0.0] * (COLUMNS + 1)
    for each in slices:
        left, right = span.x(each.at_s) - LEFT, span.x(each.end_s) - LEFT
        # an instant is seen as well
        right = max(right, left + (0.05 if each.took_s else 1.0))
        for column in range(int(left), min(int(right), COLUMNS) + 1):
            shares[column] += max(0.0, min(right, column + 1) - max(left, column))
    return [min(share, 1.0) for share in shares]


def _area(density: Sequence[float], top: int) -> Markup:
    """Return the path of the area below the shares, with a point only where they change."""
    base = top + ROW
    points = [f"M{LEFT} {base}"]
    former = 0.0
    for column, share in enumerate(density):
        if abs(share - former) >= 0.02:
            points.append(f"L{LEFT + column} {_px(base - former * (ROW - 2))}V{_px(base - share * (ROW - 2))}")
            former = share
    points.append(f"L{LEFT + COLUMNS} {_px(base - former * (ROW - 2))}V{base}Z")
    return Markup("".join(points))


def _axis(span: _Span, height: int) -> Iterator[Markup]:
    for step in range(-4, 5):
        at_s = span.at_s + step * 0.5
        if span.begin_s <= at_s <= span.end_s:
            label = "finding" if step == 0 else f"{step * 0.5:+g} s"
            yield tag("text", label, x=_px(span.x(at_s)), y=height - 4, text_anchor="middle" if step > -4 else "start")


def _late_begin(begin_s: float, at_s: float) -> str | None:
    before_s = at_s - begin_s
    return f"The trace begins {duration(max(0.0, before_s))} before the finding. " if before_s < BEFORE_S else None


def _sentence(rows: Sequence[tuple[str, Sequence[Slice]]], span: _Span) -> Markup:
    """Return the sums of each row, and the longest slices."""
    (_, steps), (_, incidents), (_, jobs) = rows
    length_s = span.end_s - span.begin_s
    busy_s = sum(min(each.end_s, span.end_s) - max(each.at_s, span.begin_s) for each in steps)
    parts = [f"{count_text(len(steps), 'recorded step')} ran for {share_text(min(1.0, busy_s / length_s))} of the time"]
    collections = [each for each in incidents if each.kind == "gc"]
    if collections:
        total = duration(sum(each.took_s for each in collections))
        parts.append(f"{count_text(len(collections), 'garbage collection')} took {total}")
    sheds = sum(each.kind == "shed" for each in incidents)
    if sheds:
        parts.append(f"{count_text(sheds, 'request')} shed")
    if jobs:
        parts.append(f"{count_text(len(jobs), 'job')} of executors ran")
    longest = _longest([*steps, *jobs])
    listed = joined(" Longest: ", ", ".join(f"{name} {duration(took_s)}" for name, took_s in longest), ".")
    return joined("; ".join(parts), ".", listed if longest else None)


def _longest(slices: Sequence[Slice]) -> list[tuple[str, float]]:
    """Return the longest slice of each name, of the names with the longest."""
    found: defaultdict[str, float] = defaultdict(float)
    for each in slices:
        found[each.name] = max(found[each.name], each.took_s)
    return sorted(found.items(), key=lambda item: -item[1])[:MOST_LISTED]


def _when(offset_s: float) -> str:
    return f"{short(abs(offset_s))} s {'before' if offset_s < 0 else 'after'} the finding"


def _px(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
