"""Figures of several workers as those of one process: gates and lanes summed by name, loops side by side."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from penstock.monitor.figures import Figures, GateRates, LaneRates, ProcessRates
from penstock.times import Times, merged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = ["merged_figures"]

SUMMED = ("cores_used", "rss_bytes", "rss_grown_bytes", "descriptors", "threads", "gc_count")
# of these the largest is shown
HIGHEST = ("oldest_wait_s", "seconds", "at_s", "wall_time_s", "scale")


def merged_figures(named: Sequence[tuple[str, Figures]]) -> Figures:
    """Return the figures of several processes together, each with its name, which is put before its loops' names."""
    every = [each for _, each in named]
    if len(every) == 1:
        return every[0]
    loops = tuple(replace(loop, name=f"{name}/{loop.name}", lanes=()) for name, each in named for loop in each.loops)
    lanes = _by_name((lane for each in every for loop in each.loops for lane in loop.lanes), _summed)
    if loops:
        loops = (replace(loops[0], lanes=tuple(lanes)), *loops[1:])
    partial = next((each for each in every if each.partial), None)
    return Figures(
        seconds=max((each.seconds for each in every), default=0.0),
        at_s=max((each.at_s for each in every), default=0.0),
        wall_time_s=max((each.wall_time_s for each in every), default=0.0),
        process=_process([each.process for each in every]),
        loops=loops,
        gates=tuple(_by_name((gate for each in every for gate in each.gates), _summed)),
        sheds=_counts(each.sheds for each in every),
        disconnects=_counts(each.disconnects for each in every),
        partial=partial is not None,
        reason=partial.reason if partial is not None else "",
        unread=partial.unread if partial is not None else (),
    )


def _process(every: Sequence[ProcessRates]) -> ProcessRates:
    if not every:
        return ProcessRates()
    sums = {name: sum(getattr(each, name) for each in every) for name in SUMMED}
    return replace(every[0], pid=every[0].supervisor or 0, worker=None, **sums)


def _by_name(every: Iterable[Any], join: Callable[[Any, Any], Any]) -> list[Any]:
    found: dict[str, Any] = {}
    for each in every:
        found[each.name] = join(found[each.name], each) if each.name in found else each
    return list(found.values())


def _summed(left: GateRates | LaneRates, right: GateRates | LaneRates) -> GateRates | LaneRates:
    """Return the sum of two gates or two lanes; a limit that one has not is none."""
    return type(left)(**{each.name: _joined(each.name, left, right) for each in fields(left)})


def _joined(name: str, left: Any, right: Any) -> Any:
    ours, theirs = getattr(left, name), getattr(right, name)
    if isinstance(ours, Times):
        return merged((ours, theirs))
    if isinstance(ours, str):
        return ours or theirs
    if isinstance(ours, dict):
        return _counts((ours, theirs))
    if ours is None or theirs is None:
        return None
    return max(ours, theirs) if name in HIGHEST else ours + theirs


def _counts(every: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for each in every:
        total.update(each)
    return dict(total)
