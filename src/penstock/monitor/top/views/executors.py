"""The view of executors: a row for each lane."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.monitor.texts import printable
from penstock.monitor.top.columns import TopColumn, TopRow
from penstock.monitor.top.formats import amount, counts_text, per_second, short_s

if TYPE_CHECKING:
    from penstock.monitor.figures import LaneRates
    from penstock.monitor.top.state import TopState

__all__ = ["COLUMNS", "lane_rows"]

COLUMNS = (
    TopColumn("lane", "lane", "the lane's name", 10, stretch=1, is_number=False),
    TopColumn("kind", "kind", "threads, processes, interpreters or another executor", 9, rank=3, is_number=False),
    TopColumn("state", "state", "idle, busy, or FULL: all workers are busy and jobs wait", 5, is_number=False),
    TopColumn("busy", "busy", "workers that run a job now", 5, has_trend=True),
    TopColumn("workers", "of", "workers that live", 4),
    TopColumn("limit", "most", "the most workers", 5, rank=4),
    TopColumn("queued", "queued", "jobs that wait for a worker", 7, has_trend=True),
    TopColumn("jobs", "jobs/s", "jobs that ended in a second", 7, has_trend=True),
    TopColumn("wait", "wait99", "wait for a worker, 99th percentile", 7, rank=1, has_trend=True),
    TopColumn("run", "run p99", "run of a job, 99th percentile", 7, rank=2, has_trend=True),
    TopColumn("sheds", "shed/s", "jobs that were shed in a second", 7, has_trend=True),
    TopColumn("waiting", "callers", "callers that wait for a place in the queue", 7, rank=5, has_trend=True),
    TopColumn("loop", "loop", "the loop of the lane", 10, rank=6, is_number=False),
)


def lane_rows(state: TopState) -> list[TopRow]:
    """Return a row for each lane of each loop."""
    return [_row(loop.name, lane) for loop in state.figures.loops for lane in loop.lanes]


def _row(loop: str, lane: LaneRates) -> TopRow:
    numbers: dict[str, float] = {
        "busy": lane.workers_busy,
        "workers": lane.workers,
        "limit": lane.workers_limit,
        "queued": lane.queued,
        "waiting": lane.waiting,
        "jobs": lane.jobs_per_s,
        "sheds": lane.sheds_per_s,
        "wait": lane.wait.p99_s,
        "run": lane.run.p99_s,
    }
    is_full = bool(lane.queued) and lane.workers_busy >= max(1, lane.workers)
    cells = {"lane": printable(lane.name), "kind": printable(lane.kind), "loop": printable(loop)}
    cells["state"] = "FULL" if is_full else "busy" if lane.running or lane.workers_busy else "idle"
    cells |= {key: _text(key, value) for key, value in numbers.items()}
    return TopRow((loop, lane.name), cells, numbers, "warn" if is_full else "", _details(lane))


def _text(key: str, value: float) -> str:
    if key in ("wait", "run"):
        return short_s(value)
    return per_second(value) if key in ("jobs", "sheds") else amount(value)


def _details(lane: LaneRates) -> tuple[str, ...]:
    return (
        f"queue {lane.queued} of {lane.queue_limit}   running {lane.running}   callers waiting {lane.waiting}",
        f"ended lately: {counts_text(lane.completed)}   shed: {counts_text(lane.shed)}",
        (
            f"wait p50 {short_s(lane.wait.p50_s)}, p99 {short_s(lane.wait.p99_s)}   "
            f"run p50 {short_s(lane.run.p50_s)}, p99 {short_s(lane.run.p99_s)}"
        ),
        f"workers restarted lately: {counts_text(lane.restarts)}",
    )
