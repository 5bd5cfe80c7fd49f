"""The charts of a run, as SVG in a light and a dark form: bars by row and arm, with intervals as whiskers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.method.goals import BEST
from benchmarks.method.interval import Interval
from benchmarks.method.results import Results
from benchmarks.method.trial import LIMIT
from benchmarks.report.short import chosen

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["THEMES", "bars", "colour", "draw", "front"]

COLOURS = {
    "asyncio": "#8c8c8c",
    "uvloop": "#4c78a8",
    "rloop": "#e0a030",
    "zuvloop": "#72a35a",
    "penstock": "#c0392b",
    "futures-spawn": "#bbbbbb",
    "futures-forkserver": "#8c8c8c",
    "loky": "#4c78a8",
    "pebble": "#72a35a",
    "anyio": "#e0a030",
    "penstock@asyncio": "#e08a80",
    "asyncio-debug": "#cccccc",
    "aiomonitor": "#e0a030",
    "opentelemetry": "#72a35a",
    "factory@asyncio": "#b9a0d0",
    "factory@uvloop": "#8060a8",
    "penstock@off": "#e8b0a8",
    "penstock@count": "#d98478",
    "penstock@time": "#c0392b",
    "penstock@trace": "#96382c",
    "semaphore": "#4c78a8",
    "limit-concurrency": "#e0a030",
    "penstock@fixed": "#c0392b",
    "penstock@auto": "#96382c",
}
# theme -> (background, text and lines)
THEMES = {"light": ("#ffffff", "#1f2328"), "dark": ("#0d1117", "#d1d7e0")}
INCH_PER_ROW = 0.52
FRONT_BASE = "asyncio"
Paint = Callable[[Results, dict[str, str], str], "Figure"]  # the results, the facts, the axis' name


def draw(paint: Paint, results: Results, stem: Path, facts: dict[str, str], axis: str) -> str | None:
    """Write `STEM-light.svg` and `STEM-dark.svg`. Return a line with the reason where nothing is written."""
    try:
        import matplotlib as mpl
    except ImportError:
        return f"no {stem}-*.svg: matplotlib is not installed"
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    for theme, (background, ink) in THEMES.items():
        with mpl.rc_context(_style(background, ink)):
            figure = paint(results, facts, axis)
            figure.savefig(f"{stem}-{theme}.svg", metadata={"Date": None})
            plt.close(figure)
    return None


def _style(background: str, ink: str) -> Any:
    ground = dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor", "legend.facecolor"), background)
    inked = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color")
    # text stays text, and the same run gives the same file
    return {**ground, **dict.fromkeys(inked, ink), "svg.fonttype": "none", "svg.hashsalt": "penstock"}


def bars(results: Results, facts: dict[str, str], axis: str) -> Figure:
    """Draw a bar for each row and arm: its speed relative to the reference of the goals."""
    base = results.goals.reference
    base = base if base in {BEST, *results.arms} else results.columns[0]
    figure, axes = _bars(results, results.rows, base)
    _goals(axes, results, results.rows[::-1], base)
    if base == BEST:
        axes.set_xscale("log")  # from a tenth to tens of times
    axes.set_xlabel(f"times as cheap as {base}: longer is better ({axis}; whiskers: 95 % intervals)")
    axes.set_title(f"{facts['python']}, {facts['cpu']}, Linux {facts['kernel']}", fontsize=9)
    figure.legend(loc="outside upper center", ncols=6, fontsize=9)
    return figure


def front(results: Results, facts: dict[str, str], axis: str) -> Figure:
    """Draw the chosen rows relative to stock asyncio: the chart of the README."""
    figure, axes = _bars(results, chosen(results), FRONT_BASE)
    axes.set_xscale("log")
    marks = (0.5, 1, 2, 5, 10, 20)
    axes.set_xticks(marks, [f"{mark:g}x" for mark in marks])
    axes.minorticks_off()
    axes.set_xlabel(f"times as cheap as asyncio: longer is better ({axis}; whiskers: 95 % intervals)")
    axes.set_title(f"{facts['python']}, {facts['cpu']}", fontsize=9)
    figure.legend(loc="outside upper center", ncols=6, fontsize=9)
    return figure


def colour(arm: str) -> str:
    """Return the colour of an arm, the one of the text for the limit and unknown arms."""
    from matplotlib import rcParams

    return COLOURS.get(arm, str(rcParams["text.color"]))


def _bars(results: Results, rows: Sequence[str], base: str) -> tuple[Figure, Axes]:
    from matplotlib import pyplot as plt

    upward = rows[::-1]
    arms = [arm for arm in results.columns if any(results.samples(row, arm) for row in rows)]
    figure, axes = plt.subplots(figsize=(10, 1.6 + INCH_PER_ROW * len(rows)), layout="constrained")
    height = 0.8 / len(arms)
    for index, arm in enumerate(arms):
        _bar(axes, results, upward, arm, base, (len(arms) / 2 - index - 0.5) * height, height)
    axes.axvline(1, color=colour(""), linewidth=0.8)
    axes.set_yticks(range(len(rows)), upward)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    return figure, axes


def _bar(axes: Axes, results: Results, rows: Sequence[str], arm: str, base: str, offset: float, height: float) -> None:
    found = [(y, ratio) for y, row in enumerate(rows) if (ratio := _relative(results, row, arm, base)) is not None]
    medians = [ratio.median for _, ratio in found]
    whiskers = [[r.median - r.low for _, r in found], [r.high - r.median for _, r in found]]
    style: dict[str, Any] = {"elinewidth": 0.8, "ecolor": colour("")}
    positions = [y + offset for y, _ in found]
    label = "a C server" if arm == LIMIT else arm
    axes.barh(positions, medians, height, xerr=whiskers, label=label, color=colour(arm), error_kw=style)


def _relative(results: Results, row: str, arm: str, base: str) -> Interval | None:
    return results.paired(row, (results.best(row) or arm) if base == BEST else base, arm)


def _goals(axes: Axes, results: Results, rows: Sequence[str], base: str) -> None:
    goals = [
        (goal.value, y)
        for y, row in enumerate(rows)
        for goal in results.goals.of(row)
        if goal.metric == "speedup" and goal.against == base
    ]
    if goals:
        values, places = zip(*goals, strict=True)
        axes.scatter(values, places, marker="|", s=260, color=colour(""), label=f"goal for {results.subject}", zorder=3)
