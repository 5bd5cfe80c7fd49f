"""The charts of a report: of the figures of a history, or of the events of a trace."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.monitor.report.charts import Chart, Series

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from penstock.monitor.figures import Figures, GateRates, LaneRates, LoopRates
    from penstock.monitor.history import History
    from penstock.monitor.report.trace import Trace, TraceLoop

__all__ = ["of_history", "of_trace"]

MOST_GATES = 4
MIB_BYTES = 1 << 20
# points of a chart that is made of events
BUCKETS = 50
Points = list[tuple[float, float]]


def of_history(history: History) -> Iterator[Chart]:
    """Yield the charts of a sampled process."""
    # the first figures cover the time since the process's start
    steps = [each for each in history.series()[1:] if not each.partial]
    if not steps:
        return
    yield from _of_loops(steps)
    for name in [gate.name for gate in steps[-1].gates][:MOST_GATES]:
        yield from _of_gate(steps, name)
    lanes = dict.fromkeys(lane.name for loop in steps[-1].loops for lane in loop.lanes)
    yield Chart(
        "Jobs that wait for a worker", "", "by lane", [_lane(steps, name, lambda x: x.queued) for name in lanes]
    )
    yield Chart(
        "Cores in use",
        "",
        "CPU time of the process by time",
        [Series("cores", _points(steps, lambda x: x.process.cores_used))],
    )
    memory = _points(steps, lambda x: x.process.rss_bytes / MIB_BYTES)
    yield Chart("Resident memory", "MiB", "of the whole process", [Series("memory", memory)])


def _of_loops(steps: Sequence[Figures]) -> Iterator[Chart]:
    names = [loop.name for loop in steps[-1].loops]
    delays = []
    for name in names:
        suffix = f" of {name}" if len(names) > 1 else ""
        delays.append(_loop(steps, name, lambda x: x.delay.p99_s * 1e3, f"99 of 100{suffix}"))
        delays.append(_loop(steps, name, lambda x: x.delay.p50_s * 1e3, f"half{suffix}"))
    yield Chart("Delay of callbacks", "ms", "how late callbacks ran, at most", delays)
    yield Chart(
        "Utilization",
        "%",
        "the share of the time for which callbacks ran",
        [_loop(steps, name, lambda x: x.utilization * 100) for name in names],
    )
    yield Chart(
        "Live tasks", "", "tasks that have not ended", [_loop(steps, name, lambda x: x.tasks_live) for name in names]
    )
    made = [_loop(steps, name, lambda x: x.created_per_s, f"made{_of(name, names)}") for name in names]
    ended = [_loop(steps, name, lambda x: x.ended_per_s, f"ended{_of(name, names)}") for name in names]
    yield Chart("Tasks made and ended", "/s", "a growing distance is a leak", [*made, *ended])


def _of(name: str, names: Sequence[str]) -> str:
    return f" in {name}" if len(names) > 1 else ""


def _of_gate(steps: Sequence[Figures], name: str) -> Iterator[Chart]:
    yield Chart(
        f"Gate {name}: requests",
        "/s",
        "finished, and shed",
        [
            _gate(steps, name, lambda x: x.goodput_per_s, "goodput"),
            _gate(steps, name, lambda x: x.sheds_per_s, "sheds"),
        ],
    )
    yield Chart(
        f"Gate {name}: limit",
        "",
        "requests at once",
        [
            _gate(steps, name, lambda x: (x.limit or 0.0) * x.scale, "limit"),
            _gate(steps, name, lambda x: x.inflight, "in flight"),
            _gate(steps, name, lambda x: x.queued, "queued"),
        ],
    )


def _points(steps: Sequence[Figures], read: Callable[[Figures], float]) -> Points:
    return [(each.at_s, read(each)) for each in steps]


def _loop(steps: Sequence[Figures], name: str, read: Callable[[LoopRates], float], label: str = "") -> Series:
    found = [(each.at_s, loop) for each in steps for loop in each.loops if loop.name == name and loop.known]
    return Series(label or name, [(at_s, read(loop)) for at_s, loop in found])


def _gate(steps: Sequence[Figures], name: str, read: Callable[[GateRates], float], label: str) -> Series:
    return Series(label, [(each.at_s, read(gate)) for each in steps for gate in each.gates if gate.name == name])


def _lane(steps: Sequence[Figures], name: str, read: Callable[[LaneRates], float]) -> Series:
    points = [
        (each.at_s, sum(read(lane) for loop in each.loops for lane in loop.lanes if lane.name == name))
        for each in steps
    ]
    return Series(name, points)


# --- a trace alone


def of_trace(trace: Trace) -> Iterator[Chart]:
    """Yield the charts of the events of a trace."""
    if trace.end_s <= trace.begin_s:
        return
    width_s = (trace.end_s - trace.begin_s) / BUCKETS
    busy = [Series(loop.name, _busy(loop, trace.begin_s, width_s)) for loop in trace.loops]
    yield Chart("Recorded steps", "%", "the share of the time for which recorded steps and callbacks ran", busy)
    longest = [Series(loop.name, _longest(loop, trace.begin_s, width_s)) for loop in trace.loops]
    yield Chart("Longest step", "ms", "the longest step or callback that began", longest)
    births: list[float] = []
    ends: list[float] = []
    for loop in trace.loops:
        births += [life.born_s for life in loop.lives if life.born_s is not None]
        ends += [life.ended_s for life in loop.lives if life.ended_s is not None]
    lines = [Series(label, _rates(at, trace.begin_s, width_s)) for label, at in (("made", births), ("ended", ends))]
    yield Chart("Tasks made and ended", "/s", "births and ends in the trace", lines)


def _bucket(at_s: float, begin_s: float, width_s: float) -> int:
    return min(BUCKETS - 1, int((at_s - begin_s) / width_s))


def _placed(values: Sequence[float], begin_s: float, width_s: float) -> Points:
    return [(begin_s + number * width_s, value) for number, value in enumerate(values)]


def _busy(loop: TraceLoop, begin_s: float, width_s: float) -> Points:
    values = [0.0] * BUCKETS
    for each in loop.of_kind("step", "callback"):
        first, last = _bucket(each.at_s, begin_s, width_s), _bucket(each.end_s, begin_s, width_s)
        for number in range(first, last + 1):
            left_s = begin_s + number * width_s
            values[number] += max(0.0, min(each.end_s, left_s + width_s) - max(each.at_s, left_s))
    return _placed([min(100.0, value / width_s * 100) for value in values], begin_s, width_s)


def _longest(loop: TraceLoop, begin_s: float, width_s: float) -> Points:
    values = [0.0] * BUCKETS
    for each in loop.of_kind("step", "callback"):
        number = _bucket(each.at_s, begin_s, width_s)
        values[number] = max(values[number], each.took_s * 1e3)
    return _placed(values, begin_s, width_s)


def _rates(moments_s: Sequence[float], begin_s: float, width_s: float) -> Points:
    values = [0.0] * BUCKETS
    for at_s in moments_s:
        # a task may have been born before the first event
        if at_s >= begin_s:
            values[_bucket(at_s, begin_s, width_s)] += 1 / width_s
    return _placed(values, begin_s, width_s)
