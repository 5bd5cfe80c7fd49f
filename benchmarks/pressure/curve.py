"""The chart of the pressure part: goodput by offered load, a line for each arm, the two services side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.method.interval import Interval
from benchmarks.method.results import Results
from benchmarks.pressure.services import SERVICES
from benchmarks.pressure.suite import LOADS, goodput
from benchmarks.report.chart import colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["curves"]

TITLES = {"io": "I/O-bound: a backend, 4 x 10 ms", "cpu": "CPU-bound: 2 x 1.25 ms of Python in the loop"}
# Markers tell apart the lines that lie on each other.
MARKERS = {
    "asyncio": "o",
    "semaphore": "x",
    "limit-concurrency": "s",
    "penstock@fixed": "D",
    "penstock@auto": "^",
}


def curves(results: Results, facts: dict[str, str], axis: str) -> Figure:
    """Draw the goodput of each service by load."""
    from matplotlib import pyplot as plt

    figure, both = plt.subplots(1, len(SERVICES), figsize=(11, 4.6), sharey=True, layout="constrained")
    for axes, service in zip(both, SERVICES, strict=True):
        for arm in results.columns:
            _line(axes, results, service, arm)
        _scales(axes)
        axes.set_title(TITLES[service], fontsize=10)
    both[0].set_ylabel(axis)
    both[0].legend(loc="center left", fontsize=9)
    figure.suptitle(f"{facts['python']}, {facts['cpu']}, Linux {facts['kernel']}", fontsize=9)
    return figure


def _line(axes: Axes, results: Results, service: str, arm: str) -> None:
    found = {load: spread for load in LOADS if (spread := _spread(results, service, load, arm)) is not None}
    medians = [spread.median for spread in found.values()]
    whiskers = [[s.median - s.low for s in found.values()], [s.high - s.median for s in found.values()]]
    style: dict[str, Any] = {
        "marker": MARKERS.get(arm, "."),
        "color": colour(arm),
        "markersize": 5,
        "linewidth": 1.6,
    }
    axes.errorbar(list(found), medians, yerr=whiskers, label=arm, elinewidth=0.8, **style)


def _spread(results: Results, service: str, load: float, arm: str) -> Interval | None:
    row = goodput(f"{service} at {load:g}x")
    return results.cost(row, arm) if row in results.rounds else None


def _scales(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.set_xticks(LOADS, [f"{load:g}x" for load in LOADS])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("offered load, in multiples of the service's own capacity")
    axes.grid(alpha=0.3)
