"""Hand-made answers of a process: small, with the keys of the protocol, to be changed by keyword."""

from collections.abc import Sequence
from typing import Any

from penstock.times import Histogram, taken

Answer = dict[str, Any]


def times(*durations_s: float) -> Answer:
    """Return a `times` object of the durations."""
    histogram = Histogram()
    for each in durations_s:
        histogram.add(int(each * 1e9))
    return times_of(histogram)


def times_of(histogram: Any) -> Answer:
    """Return a `times` object of a histogram."""
    found = taken(histogram)
    return {
        "count": found.count,
        "mean_s": found.mean_s,
        "p50_s": found.p50_s,
        "p90_s": found.p90_s,
        "p99_s": found.p99_s,
        "max_s": found.max_s,
        "total_s": found.total_s,
        "buckets": [list(each) for each in found.buckets],
    }


def place(file: str = "app.py", line: int = 41, function: str = "handler") -> Answer:
    """Return a `place` object."""
    return {"file": file, "line": line, "function": function}


def site(at: Answer | None = None, **changes: Any) -> Answer:
    """Return a site of tasks."""
    plain = {"created": 0, "completed": 0, "failed": 0, "cancelled": 0, "live": 0, "running_s": 0.0, "ready_s": 0.0}
    return {"site": at or place(), **plain, "latency": times(), **changes}


def lane(name: str = "io", **changes: Any) -> Answer:
    """Return an idle lane of four threads."""
    return {
        "name": name,
        "kind": "threads",
        "workers": 4,
        "workers_busy": 0,
        "workers_limit": 4,
        "queued": 0,
        "waiting": 0,
        "running": 0,
        "queue_limit": 1000,
        "completed": {},
        "shed": {},
        "wait": times(),
        "run": times(),
        "restarts": {},
        **changes,
    }


def gate(name: str = "http", **changes: Any) -> Answer:
    """Return an idle gate with a limit of 10."""
    return {
        "name": name,
        "limit": 10,
        "scale": 1.0,
        "inflight": 0,
        "queued": 0,
        "oldest_wait_s": 0.0,
        "admitted": 0,
        "finished": 0,
        "waited": 0,
        "wait": times(),
        "service": times(),
        "sheds": {},
        "limit_reason": "",
        "streams": 0,
        "max_queued": 100,
        **changes,
    }


def loop(name: str = "main", *, tasks: Answer | None = None, **changes: Any) -> Answer:
    """Return a loop that has done nothing yet."""
    plain = dict.fromkeys(("created", "completed", "failed", "cancelled", "lost", "live", "steps"), 0)
    return {
        "name": name,
        "implementation": "native",
        "level": "time",
        "running": True,
        "thread_id": 1,
        "native_id": 100,
        "turns": 0,
        "polls": 0,
        "events": 0,
        "active_s": 0.0,
        "idle_s": 0.0,
        "ready_count": 0,
        "ready_age_s": 0.0,
        "timer_count": 0,
        "callbacks": {"task": 0, "callback": 0, "timer": 0, "io": 0},
        "delay": times(),
        "turn": times(),
        "callback": times(),
        "stalls": {"python": 0, "gil": 0, "gc": 0, "descheduled": 0},
        "blocked": None,
        "tasks": {**plain, "latency": times(), "step": times(), "start_delay": times(), **(tasks or {})},
        "findings": {},
        "sites": [],
        "sites_left_out": 0,
        "connections": {},
        "lanes": [],
        "overload": None,
        **changes,
    }


def snapshot(
    at_s: float = 100.0,
    *,
    loops: Sequence[Answer] = (),
    gates: Sequence[Answer] = (),
    process: Answer | None = None,
    **changes: Any,
) -> Answer:
    """Return an answer to `snapshot` of process 7."""
    about = {"pid": 7, "uptime_s": at_s - 50, "cpu_s": 0.0, "rss_bytes": 50_000_000, "descriptors": 10, "cores": 4}
    return {
        "ok": True,
        "version": 1,
        "partial": False,
        "pid": 7,
        "at_s": at_s,
        "wall_time_s": 1.7e9 + at_s,
        "process": {**about, **(process or {})},
        "loops": list(loops),
        "gates": list(gates),
        "sheds": {},
        "disconnects": {},
        "mark": 0,
        **changes,
    }


def partial(at_s: float = 101.0, *, lasted_s: float = 0.3, **changes: Any) -> Answer:
    """Return the answer of the native thread while the GIL is held by the loop `main`."""
    blocked = {"since_s": at_s - lasted_s, "lasted_s": lasted_s, "kind": "callback"}
    found = {"name": "main", "running": True, "thread_id": 1, "native_id": 100, "turns": 9, "blocked": blocked}
    return {
        "ok": True,
        "version": 1,
        "partial": True,
        "pid": 7,
        "at_s": at_s,
        "wall_time_s": 1.7e9 + at_s,
        "reason": "the GIL was not available for 0.062 s",
        "unread": ["tasks", "lanes", "gates"],
        "loops": [found],
        "threads": [],
        **changes,
    }
