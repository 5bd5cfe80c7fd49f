"""The view of loops: a row for each loop, and its stalls, its running callback and its recent past below."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.monitor.texts import duration, place_text, printable
from penstock.monitor.top.columns import TopColumn, TopRow
from penstock.monitor.top.formats import amount, counts_text, memory, per_second, percent, short_s, spark

if TYPE_CHECKING:
    from penstock.monitor.figures import LoopRates
    from penstock.monitor.top.state import TopState

__all__ = ["COLUMNS", "loop_rows"]

COLUMNS = (
    TopColumn("loop", "loop", "the loop's name; before it the worker's number", 10, stretch=1, is_number=False),
    TopColumn("state", "state", "running, BLOCKED by a callback now, or stopped", 8, is_number=False),
    TopColumn("busy", "busy", "utilization: the share of the time for which callbacks ran", 6, has_trend=True),
    TopColumn("p50", "dly p50", "delay, median: how late callbacks ran after they were due", 7, has_trend=True),
    TopColumn("p99", "dly p99", "delay, 99th percentile: one callback in a hundred ran later", 7, has_trend=True),
    TopColumn("max", "dly max", "delay, the longest of the last seconds", 7, rank=2, has_trend=True),
    TopColumn("turns", "turns/s", "turns in a second: one poll and its callbacks", 7, rank=3, has_trend=True),
    TopColumn("ready", "ready", "callbacks that are due and wait for the loop now", 6, rank=1, has_trend=True),
    TopColumn("tasks", "tasks", "live tasks", 6, has_trend=True),
    TopColumn("steps", "steps/s", "steps of tasks in a second, each to the next await", 7, rank=5, has_trend=True),
    TopColumn("created", "new/s", "tasks created in a second", 6, rank=6, has_trend=True),
    TopColumn("failed", "fail/s", "tasks that failed in a second", 6, rank=7, has_trend=True),
    TopColumn("callback", "cb p99", "callbacks, 99th percentile of their time", 7, rank=8, has_trend=True),
    TopColumn("events", "events/s", "events of descriptors in a second", 8, rank=9, has_trend=True),
    TopColumn("timers", "timers", "timers that are set", 6, rank=10, has_trend=True),
    TopColumn("kind", "kind", "native: penstock's reactor; else asyncio's own loop", 8, rank=11, is_number=False),
)


def loop_rows(state: TopState) -> list[TopRow]:
    """Return a row for each loop."""
    bars = _bars(state)
    return [_row(loop, (*_details(loop), *bars, _process(state))) for loop in state.figures.loops]


def _row(loop: LoopRates, details: tuple[str, ...]) -> TopRow:
    numbers = {
        "busy": loop.utilization,
        "p50": loop.delay.p50_s,
        "p99": loop.delay.p99_s,
        "max": loop.delay.max_s,
        "turns": loop.turns_per_s,
        "ready": loop.ready_count,
        "tasks": loop.tasks_live,
        "steps": loop.steps_per_s,
        "created": loop.created_per_s,
        "failed": loop.failed_per_s,
        "callback": loop.callback.p99_s,
        "events": loop.events_per_s,
        "timers": loop.timer_count,
    }
    cells = {"loop": printable(loop.name), "state": _state(loop), "kind": loop.implementation or "-"}
    cells |= {key: _text(key, value) if loop.known else "-" for key, value in numbers.items()}
    return TopRow(loop.name, cells, numbers if loop.known else {}, "bad" if loop.blocked else "", details)


def _text(key: str, value: float) -> str:
    if key == "busy":
        return percent(value)
    if key in ("p50", "p99", "max", "callback"):
        return short_s(value)
    return amount(value) if key in ("ready", "tasks", "timers") else per_second(value)


def _state(loop: LoopRates) -> str:
    return "BLOCKED" if loop.blocked else "running" if loop.running else "stopped"


def _details(loop: LoopRates) -> list[str]:
    lines = []
    if loop.blocked is not None:
        task = f", task {printable(loop.blocked.task)}" if loop.blocked.task else ""
        lines.append(f"! a {loop.blocked.kind} runs for {duration(loop.blocked.lasted_s)}{task}")
        lines += [f"    {printable(frame)}" for frame in loop.blocked.stack[:3]]
    elif loop.known:
        longest = max(loop.sites, key=lambda site: site.live, default=None)
        if longest is not None:
            lines.append(f"most tasks: {amount(longest.live)} made in {place_text(longest.site)}")
    lines.append(f"stalls: {counts_text(loop.stalls)}   findings: {counts_text(loop.findings)}")
    return lines


def _bars(state: TopState) -> list[str]:
    shown = state.shown
    if len(shown) != 1 or not shown[0].series:
        return []
    busy, delay = [each[0] for each in shown[0].series], [each[1] for each in shown[0].series]
    return [
        f"busy   |{spark(busy, 1.0):>60}| full 100%",
        f"dly p99|{spark(delay):>60}| full {short_s(max(delay))}",
    ]


def _process(state: TopState) -> str:
    process = state.figures.process
    return (
        f"cpu {process.cores_used:.2f} of {process.cores:g} cores   memory {memory(process.rss_bytes)}   "
        f"descriptors {process.descriptors}   threads {process.threads}   gc {percent(process.gc_share)}"
    )
