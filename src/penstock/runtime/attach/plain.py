"""Records as plain data for JSON: times, places, lanes, gates, findings. They contain no data of requests."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock.executors.counters import LaneStatistics
    from penstock.tasks.cancellations import Cancellation, NamedTask
    from penstock.tasks.finding import Finding
    from penstock.tasks.place import Place
    from penstock.tasks.records import LiveTask, SiteStatistics
    from penstock.times import Times

__all__ = [
    "plain_cancellation",
    "plain_finding",
    "plain_lane",
    "plain_place",
    "plain_site",
    "plain_task",
    "plain_times",
    "short_name",
]

# the names of tasks come from the program: a long one is cut
MOST_NAME_CHARS = 120
# evidence that is about the program's code and its times, and never about its data
KNOWN_EVIDENCE = frozenset(
    {
        *("age_s", "await_chain", "blocked", "call", "callbacks", "cause", "count", "cpu_s", "cpu_share"),
        *("created", "creation_stack", "cycle", "defined", "ended", "exception_type", "gc_s", "gil_wait_s", "lasted_s"),
        *("late_s", "live", "observed_s", "repeated", "runnable_s", "site_p99_s", "stack", "steps", "turn"),
        *("unsampled", "waited_at", "number", "trace", "rate_per_s", "samples", "growth"),
    }
)
# the messages of these kinds quote an exception
QUOTING = {"failed": "no code awaited it", "exception_unretrieved": "its exception was not retrieved"}


def short_name(name: object) -> str:
    """Return a name of the program's in one line, at most 120 characters."""
    text = " ".join(str(name).split())
    return text if len(text) <= MOST_NAME_CHARS else f"{text[: MOST_NAME_CHARS - 3]}..."


def plain_times(times: Times) -> dict[str, Any]:
    """Return a histogram with its quantiles and buckets."""
    return {
        "count": times.count,
        "mean_s": times.mean_s,
        "p50_s": times.p50_s,
        "p90_s": times.p90_s,
        "p99_s": times.p99_s,
        "max_s": times.max_s,
        "total_s": times.total_s,
        "buckets": times.buckets,
    }


def plain_place(place: Place | None) -> dict[str, Any] | None:
    """Return a place with its text."""
    if place is None:
        return None
    return {"file": place.file, "line": place.line, "function": place.function, "text": str(place)}


def plain_site(site: SiteStatistics) -> dict[str, Any]:
    """Return the counts and times of a site."""
    return {
        "site": plain_place(site.site),
        "created": site.created,
        "completed": site.completed,
        "failed": site.failed,
        "cancelled": site.cancelled,
        "live": site.live,
        "running_s": site.running_s,
        "ready_s": site.ready_s,
        "latency": plain_times(site.latency),
        "step": plain_times(site.step),
        "schedule": plain_times(site.schedule),
    }


def plain_task(task: LiveTask, loop: str) -> dict[str, Any]:
    """Return a live task of the loop with this name."""
    return {
        "number": task.number,
        "name": short_name(task.name),
        "loop": loop,
        "site": plain_place(task.site),
        "state": task.state,
        "age_s": task.age_s,
        "running_s": task.running_s,
        "ready_s": task.ready_s,
        "waiting_s": task.waiting_s,
        "steps": task.steps,
    }


def plain_lane(lane: LaneStatistics) -> dict[str, Any]:
    """Return the figures of a lane."""
    counts = ("workers", "workers_busy", "workers_limit", "queued", "waiting", "running", "queue_limit")
    return {
        "name": lane.name,
        "kind": lane.kind,
        **{name: getattr(lane, name) for name in counts},
        "completed": dict(lane.completed),
        "shed": dict(lane.shed),
        "wait": plain_times(lane.wait),
        "run": plain_times(lane.run),
        "transfer_bytes": dict(lane.transfer_bytes),
        "restarts": dict(lane.restarts),
    }


def plain_gate(gate: Any) -> dict[str, Any]:
    """Return the figures of a registered gate."""
    record = gate.statistics()
    figures = ("limit", "scale", "inflight", "queued", "oldest_wait_s", "admitted", "finished", "waited")
    return {
        "name": short_name(record.name),
        **{name: finite(getattr(record, name)) for name in figures},
        "wait": plain_times(record.wait),
        "service": plain_times(record.service),
        "sheds": dict(record.sheds),
        "limit_reason": record.limit_reason,
        "limit_moved_at_s": finite(record.limit_moved_at_s),
        "streams": record.streams,
        "max_queued": finite(getattr(gate, "max_queued", None)),
    }


def finite(value: Any) -> Any:
    """Return a number that JSON has; None for an infinite one."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def plain_finding(finding: Finding) -> dict[str, Any]:
    """Return a finding without texts of the program: exceptions and representations may quote its data."""
    evidence = {key: _plain(value) for key, value in finding.evidence.items() if key in KNOWN_EVIDENCE}
    return {
        "kind": finding.kind,
        "message": _message(finding),
        "site": plain_place(finding.site),
        "task": None if finding.task is None else short_name(finding.task),
        "loop": finding.loop,
        "since_s": finding.since_s,
        "wall_time_s": finding.wall_time_s,
        "evidence": evidence,
    }


def plain_cancellation(found: Cancellation) -> dict[str, Any]:
    """Return a cancellation of a task, with the task that called."""
    return {
        "at_s": found.at_s,
        "wall_time_s": found.wall_time_s,
        "task": _plain_name(found.task),
        "by": None if found.by is None else _plain_name(found.by),
        "thread": short_name(found.thread),
        "place": plain_place(found.place),
        "chain": [short_name(name) for name in found.chain],
    }


def _plain_name(task: NamedTask) -> dict[str, Any]:
    return {"name": short_name(task.name), "number": task.number, "site": plain_place(task.site)}


def _message(finding: Finding) -> str:
    if finding.kind not in QUOTING:
        return " ".join(finding.message.split())
    task = "a task" if finding.task is None else f"task {short_name(finding.task)!r}"
    reason = finding.evidence.get("exception_type")
    failed = f"{task} failed with {reason}" if reason else f"{task} failed"
    where = "" if finding.site is None else f" (created at {finding.site})"
    return f"{failed}: {QUOTING[finding.kind]}{where}"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(each) for each in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    return finite(value) if isinstance(value, float) else str(value)
