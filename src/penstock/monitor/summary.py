"""A summary of a process as text: its faults, then its figures; and the same as plain data."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

from penstock.monitor.rules.engine import NOTHING, diagnose, first_line
from penstock.monitor.texts import count_text, duration, share_text, size, where
from penstock.times import Times

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from penstock.monitor.figures import Figures, GateRates, LaneRates, LoopRates, ProcessRates
    from penstock.monitor.history import History
    from penstock.monitor.rules.diagnosis import Diagnosis

__all__ = ["summary", "summary_as_json"]

# the most sites of each loop that are shown
MOST_SITES = 5


def summary(history: History, seconds: float) -> str:
    """Return the faults and the figures of the last `seconds` as lines of text."""
    found, shown = diagnose(history, seconds), history.over(seconds)
    lines = [*_wrong(found), "", f"figures of {duration(shown.seconds)}", *_process(shown.process)]
    for loop in shown.loops:
        lines += _loop(loop)
    lines += [_gate(gate) for gate in shown.gates]
    if shown.partial:
        lines += ["", f"the last answer is partial: {shown.reason}"]
    return "\n".join(lines)


def _wrong(found: Sequence[Diagnosis]) -> Iterator[str]:
    if not found:
        yield NOTHING
        return
    yield f"{found[0].sentence}:"
    yield f"  {found[0].next_step}"
    if found[1:]:
        yield "also"
    for each in found[1:]:
        yield f"  {each.sentence}:"
        yield f"    {each.next_step}"


def _process(process: ProcessRates) -> Iterator[str]:
    name = f" {process.name}" if process.name else ""
    yield (
        f"  process{name}: {process.cores_used:.2f} of {process.cores:g} cores, {size(process.rss_bytes)}, "
        f"{count_text(process.descriptors, 'descriptor')}, {count_text(process.threads, 'thread')}, "
        f"garbage collections {share_text(process.gc_share)}"
    )
    if process.throttled_share:
        yield f"  quota: stopped for {share_text(process.throttled_share)} of the time"


def _loop(loop: LoopRates) -> Iterator[str]:
    if not loop.known:
        yield f"  loop {loop.name}: not read"
        return
    state = "" if loop.running else ", not running"
    yield (
        f"  loop {loop.name}: busy {share_text(loop.utilization)}{state}, delay p50 {duration(loop.delay.p50_s)} "
        f"p99 {duration(loop.delay.p99_s)}, {loop.turns_per_s:,.0f} turns/s, {loop.callbacks_per_s:,.0f} callbacks/s"
    )
    stalls = sum(loop.stalls.values())
    yield (
        f"    tasks {loop.tasks_live:,} live, {loop.created_per_s:,.0f} created/s, {loop.ended_per_s:,.0f} ended/s, "
        f"{loop.failed_per_s:,.0f} failed/s; {count_text(loop.ready_count, 'callback')} ready; "
        f"{count_text(stalls, 'stall')}"
    )
    for site in [each for each in loop.sites if each.live or each.created_per_s][:MOST_SITES]:
        yield (
            f"    site {where(site.site)}: {site.live:,} live, {site.created_per_s:,.0f} created/s, "
            f"running {share_text(site.running_share)}"
        )
    yield from (_lane(lane) for lane in loop.lanes)


def _lane(lane: LaneRates) -> str:
    return (
        f"    lane {lane.name}: {lane.workers_busy} of {count_text(lane.workers, 'worker')} busy, "
        f"{lane.queued + lane.waiting:,} queued, {lane.jobs_per_s:,.1f} jobs/s, wait p99 {duration(lane.wait.p99_s)}, "
        f"{lane.sheds_per_s:,.1f} shed/s"
    )


def _gate(gate: GateRates) -> str:
    limit = "none" if gate.limit is None else f"{gate.limit:g}"
    return (
        f"  gate {gate.name}: limit {limit}, {gate.inflight:,} inflight, {gate.queued:,} queued, "
        f"{gate.goodput_per_s:,.1f} finished/s, {gate.sheds_per_s:,.1f} shed/s, "
        f"service p99 {duration(gate.service.p99_s)}"
    )


def summary_as_json(history: History, seconds: float) -> dict[str, Any]:
    """Return the same as plain data: `first_line`, `wrong`, `figures`."""
    found, shown = diagnose(history, seconds), history.over(seconds)
    return {"first_line": first_line(found), "wrong": [each.as_json() for each in found], "figures": _plain(shown)}


def _plain(value: Figures | Any) -> Any:
    """Return a record of figures as plain data, times by their quantiles."""
    if isinstance(value, Times):
        names = ("count", "mean_s", "p50_s", "p90_s", "p99_s", "max_s")
        return {name: getattr(value, name) for name in names}
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    return [_plain(each) for each in value] if isinstance(value, tuple) else value
