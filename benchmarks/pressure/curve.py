"""The PNG of the pressure part: goodput by offered load, a line for each arm, the two services side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.chart import COLOURS
from benchmarks.pressure.services import SERVICES
from benchmarks.pressure.suite import LOADS, goodput
from benchmarks.results import Results, Spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw"]

TITLES = {"io": "I/O-bound: a backend, 4 x 10 ms", "cpu": "CPU-bound: 2 x 1.25 ms of Python in the loop"}
# Lines that lie on each other are told apart by their markers.
MARKERS = {
    "asyncio": "o",
    "semaphore": "x",
    "limit-concurrency": "s",
    "penstock@fixed": "D",
    "penstock@auto": "^",
}


def draw(results: Results, path: str, facts: dict[str, str], axis: str) -> str | None:
    """Write the chart; a line that says why when matplotlib is not there, or when no load was measured."""
    try:
        import matplotlib as mpl
    except ImportError:
        return f"no {path}: matplotlib is not installed"
    if not any(goodput(f"{service} at {load:g}x") in results.rows for service in SERVICES for load in LOADS):
        return f"no {path}: no row of goodput by load was measured"
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, both = plt.subplots(1, len(SERVICES), figsize=(11, 4.6), sharey=True, layout="constrained")
    for axes, service in zip(both, SERVICES, strict=True):
        for arm in results.arms:
            _line(axes, results, service, arm)
        _scales(axes)
        axes.set_title(TITLES[service], fontsize=10)
    both[0].set_ylabel(axis)
    both[0].legend(loc="center left", fontsize=9)
    figure.suptitle(f"{facts['python']}, {facts['cpu']}, Linux {facts['kernel']}", fontsize=9)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return None


def _line(axes: Axes, results: Results, service: str, arm: str) -> None:
    found = {load: spread for load in LOADS if (spread := _spread(results, service, load, arm)) is not None}
    medians = [spread.median for spread in found.values()]
    whiskers = [[s.median - s.low for s in found.values()], [s.high - s.median for s in found.values()]]
    style: dict[str, Any] = {
        "marker": MARKERS.get(arm, "."),
        "color": COLOURS.get(arm),
        "markersize": 5,
        "linewidth": 1.6,
    }
    axes.errorbar(list(found), medians, yerr=whiskers, label=arm, elinewidth=0.8, **style)


def _spread(results: Results, service: str, load: float, arm: str) -> Spread | None:
    row = goodput(f"{service} at {load:g}x")
    return results.cost_ns(row, arm) if row in results.rounds else None


def _scales(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.set_xticks(LOADS, [f"{load:g}x" for load in LOADS])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("offered load, in multiples of the service's own capacity")
    axes.grid(alpha=0.3)
