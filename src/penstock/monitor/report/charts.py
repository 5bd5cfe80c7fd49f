"""Charts as SVG, without a script: lines over time. Lines differ by their dashes too, and are named at their ends."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from penstock.monitor.report.markup import Markup, joined, tag

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["Chart", "Series", "drawn", "nice_top", "short"]

# pixels: the picture, and its margins
WIDTH, HEIGHT = 420, 170
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 8, 34
# lines that the four patterns of dashes distinguish
MOST_SERIES = 4
# more than pixels of a chart's width
MOST_POINTS = 600


@dataclass(frozen=True, slots=True)
class Series:
    """A line: its label, and its points as (seconds, value), in order."""

    label: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart. `meaning` explains its lines in a sentence."""

    title: str
    unit: str
    meaning: str
    series: Sequence[Series]


def short(value: float) -> str:
    """Return a number with at most three digits and a letter for thousands and more."""
    for bound, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= bound:
            return f"{value / bound:.3g}{letter}"
    return f"{value:.3g}"


def nice_top(value: float) -> float:
    """Return the least 1, 2 or 5 times a power of ten that is not below the value; 1 for 0."""
    if value <= 0 or not math.isfinite(value):
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value * (1 - 1e-9))


def drawn(chart: Chart) -> Markup | None:
    """Return the chart as a figure; None without two points of time."""
    series = [each for each in chart.series if each.points][:MOST_SERIES]
    times_s = [at_s for each in series for at_s, _ in each.points]
    if not times_s or max(times_s) <= min(times_s):
        return None
    begin_s, end_s = min(times_s), max(times_s)
    top = nice_top(max(value for each in series for _, value in each.points))

    def x(at_s: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (at_s - begin_s) / (end_s - begin_s)

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - min(max(value, 0.0), top) / top)

    picture = tag(
        "svg",
        *_grid(top, chart.unit, y),
        *_times(end_s - begin_s),
        *(_line(number, each, x, y) for number, each in enumerate(series)),
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=f"{chart.title}: {_summary(series, chart.unit)}",
    )
    legend = [_key(number, each, chart.unit) for number, each in enumerate(series)]
    caption = tag("figcaption", tag("b", chart.title), tag("span", chart.meaning, class_="meaning"))
    return tag("figure", caption, picture, tag("p", *legend, class_="legend"), class_="chart")


def _grid(top: float, unit: str, y: Callable[[float], float]) -> Iterator[Markup]:
    for share in (0.0, 0.5, 1.0):
        height = y(top * share)
        yield tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=_px(height), y2=_px(height), class_="grid")
        label = f"{short(top * share)}{f' {unit}' if share == 1.0 and unit else ''}"
        yield tag("text", label, x=LEFT - 5, y=_px(height + 4), text_anchor="end")


def _times(length_s: float) -> Iterator[Markup]:
    last = HEIGHT - BOTTOM + 16
    yield tag("text", f"-{short(length_s)} s", x=LEFT, y=last)
    yield tag("text", "end", x=WIDTH - RIGHT, y=last, text_anchor="end")


def _line(number: int, series: Series, x: Callable[[float], float], y: Callable[[float], float]) -> Markup:
    points = list(series.points)[-MOST_POINTS:]
    path = "M" + "L".join(f"{_px(x(at_s))} {_px(y(value))}" for at_s, value in points)
    return tag("path", tag("title", series.label), d=Markup(path), class_=f"line s{number}")


def _key(number: int, series: Series, unit: str) -> Markup:
    """Return the legend of a line: its stroke, its name, its last and its highest value."""
    stroke = tag("svg", tag("path", d="M0 5L24 5", class_=f"line s{number}"), viewBox="0 0 24 10", aria_hidden="true")
    highest = max(value for _, value in series.points)
    shown = f"{series.label}: {short(series.points[-1][1])}, at most {short(highest)} {unit}".rstrip()
    return tag("span", stroke, shown, class_="key")


def _summary(series: Sequence[Series], unit: str) -> str:
    return "; ".join(
        f"{each.label} at the end {short(each.points[-1][1])}, at most {short(max(v for _, v in each.points))} {unit}"
        for each in series
    )


def _px(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def all_drawn(charts: Sequence[Chart]) -> Markup:
    """Return the charts that have data, side by side."""
    return tag("div", joined(*(found for chart in charts if (found := drawn(chart)) is not None)), class_="charts")
