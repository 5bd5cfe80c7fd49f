"""The PNG: for each row a bar per arm with its speed relative to what the goals refer to, quartiles as whiskers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchmarks.arms import LIMIT
from benchmarks.goals import BEST
from benchmarks.results import Results, Spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["COLOURS", "draw"]

COLOURS = {
    "asyncio": "#8c8c8c",
    "uvloop": "#4c78a8",
    "rloop": "#e0a030",
    "penstock": "#c0392b",
    LIMIT: "#333333",
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
    "penstock@trace": "#7a1f15",
    "semaphore": "#4c78a8",
    "limit-concurrency": "#e0a030",
    "penstock@fixed": "#c0392b",
    "penstock@auto": "#7a1f15",
}
LINES_PER_ROW_INCH = 0.52


def draw(results: Results, path: str, facts: dict[str, str], axis: str) -> str | None:
    """Write the chart; a line that says why when matplotlib is not there."""
    try:
        import matplotlib as mpl
    except ImportError:
        return f"no {path}: matplotlib is not installed"
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    base = results.goals.reference
    base = base if base in {BEST, *results.arms} else results.arms[0]
    arms = [arm for arm in [*results.arms, LIMIT] if any(results.samples(row, arm) for row in results.rows)]
    rows = results.rows[::-1]
    figure, axes = plt.subplots(figsize=(11, 1.6 + LINES_PER_ROW_INCH * len(rows)), layout="constrained")
    for index, arm in enumerate(arms):
        _bars(axes, results, rows, arm, base, (len(arms) / 2 - index - 0.5) * 0.8 / len(arms), 0.8 / len(arms))
    _goals(axes, results, rows, base)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    if base == BEST:
        axes.set_xscale("log")  # from a tenth to tens of times
    axes.set_xlabel(f"times as cheap as {base}: longer is better ({axis}; whiskers: quartiles)")
    axes.set_title(f"{facts['python']}, {facts['cpu']}, Linux {facts['kernel']}", fontsize=9)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=110)
    return None


def _bars(axes: Axes, results: Results, rows: Sequence[str], arm: str, base: str, offset: float, height: float) -> None:
    found = [(y, ratio) for y, row in enumerate(rows) if (ratio := _relative(results, row, arm, base)) is not None]
    medians = [ratio.median for _, ratio in found]
    whiskers = [[r.median - r.low for _, r in found], [r.high - r.median for _, r in found]]
    positions = [y + offset for y, _ in found]
    colour = COLOURS.get(arm.partition(":")[0])
    axes.barh(positions, medians, height, xerr=whiskers, label=arm, color=colour, error_kw={"elinewidth": 0.8})


def _relative(results: Results, row: str, arm: str, base: str) -> Spread | None:
    base = (results.best(row) or arm) if base == BEST else base
    pairs = [arms for arms in results.rounds[row].values() if arm in arms and base in arms]
    return Spread.of(arms[base].cost_ns / max(arms[arm].cost_ns, 1e-9) for arms in pairs) if pairs else None


def _goals(axes: Axes, results: Results, rows: Sequence[str], base: str) -> None:
    if base == results.goals.reference:
        goals = [(y, goal) for y, row in enumerate(rows) if (goal := results.goals.of(row)) is not None]
        found, positions = [goal for _, goal in goals], [y for y, _ in goals]
        axes.scatter(found, positions, marker="|", s=260, color="black", label="goal for penstock", zorder=3)
