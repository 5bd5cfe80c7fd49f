"""The snapshot of this process: its loops with tasks, sites, connections and lanes, and its gates."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Any

from penstock.executors.lanes import lane_sets
from penstock.loop.native import native_core
from penstock.pressure.admission.registry import registered
from penstock.pressure.overload.connections import memory_statistics
from penstock.pressure.overload.sheds import all_sheds
from penstock.runtime.attach.plain import plain_gate, plain_lane, plain_place, plain_site, plain_times, short_name
from penstock.tasks.awaits.frames import frame_of_thread, outward, user_place
from penstock.tasks.observers.native import NativeObserver
from penstock.tasks.observers.registry import observed_loops, registered_s

if TYPE_CHECKING:
    from penstock.runtime.attach.pace import Pace
    from penstock.tasks.observers.registry import Observer
    from penstock.tasks.place import Place
    from penstock.tasks.records import SiteStatistics, TaskStatistics

__all__ = ["blocked_loop", "loop_facts", "loop_snapshots", "process_snapshot", "stack_of_thread"]

# a callback that runs for so long blocks the loop
BLOCKED_NS = 50_000_000
MOST_FRAMES = 60
TIMES = ("delay", "turn", "callback", "poll", "wake")
TASK_COUNTS = ("created", "completed", "failed", "cancelled", "lost", "live", "eager", "steps", "running_s", "ready_s")
FIGURES = ("turns", "polls", "events", "active_s", "idle_s", "ready_count", "ready_age_s", "timer_count")
SOURCES = {
    "Stream": "streams",
    "LimitedStream": "streams",
    "Listener": "listeners",
    "DatagramEndpoint": "datagrams",
    "ReadPipe": "pipes",
    "WritePipe": "pipes",
}
# sources that are counted one by one; of more, the count is given without kinds
MOST_SOURCES = 2000


def process_snapshot(pace: Pace, sites: int) -> dict[str, Any]:
    """Return the loops and gates of this process, each loop with at most `sites` sites."""
    return {
        "loops": loop_snapshots(pace, sites),
        "gates": [plain_gate(gate) for gate in pace.over(registered())],
        "sheds": {"/".join(key): count for key, count in all_sheds().items()},
        "disconnects": dict(memory_statistics().disconnects),
    }


def loop_facts(loop: asyncio.AbstractEventLoop, observer: Observer) -> dict[str, Any]:
    """Return the facts of a loop that a list of processes shows."""
    record, blocked = observer.statistics(), blocked_loop(loop, observer)
    return {
        "name": record.loop,
        "implementation": record.implementation,
        "level": record.level,
        "running": loop.is_running(),
        "utilization": _utilization(loop, record.figures.active_s),
        "tasks_live": record.live,
        "findings": dict(record.findings),
        "blocked_s": None if blocked is None else blocked["lasted_s"],
    }


def _utilization(loop: asyncio.AbstractEventLoop, active_s: float) -> float:
    """Return the share of the time since the loop was made for which callbacks ran; a poll that lasts counts too."""
    return min(1.0, active_s / max(time.monotonic() - registered_s(loop), active_s, 1e-9))


def loop_snapshots(pace: Pace, sites: int) -> list[dict[str, Any]]:
    """Return a snapshot of each observed loop."""
    lanes = {id(loop): each for loop, each in lane_sets()}
    return [_loop(pace, loop, observer, lanes.get(id(loop)), sites) for loop, observer in pace.over(observed_loops())]


def _loop(pace: Pace, loop: Any, observer: Observer, lanes: Any, sites: int) -> dict[str, Any]:
    blocked = blocked_loop(loop, observer)
    record, sites_found = _recorded(pace, observer)
    thread_id = getattr(loop, "_thread_id", None) or 0
    found: dict[str, Any] = {
        "name": record.loop,
        "implementation": record.implementation,
        "level": record.level,
        "running": loop.is_running(),
        "thread_id": thread_id,
        **{name: getattr(record.figures, name) for name in FIGURES},
        "utilization": _utilization(loop, record.figures.active_s),
        "callbacks": dict(record.figures.callbacks),
        "stalls": dict(record.figures.stalls),
        "findings": dict(record.findings),
        "dropped": record.dropped,
        "errors": record.errors,
        "blocked": blocked,
        "tasks": {name: getattr(record, name) for name in TASK_COUNTS},
    }
    for name in pace.over(TIMES):
        found[name] = plain_times(getattr(record.figures, name))
    for name in ("latency", "step", "start_delay"):
        found["tasks"][name] = plain_times(getattr(record, name))
    found |= _sites(pace, sites_found, sites)
    found["connections"] = _connections(loop)
    found["overload"] = _overload(loop)
    found["lanes"] = [plain_lane(each) for each in pace.over(() if lanes is None else lanes.statistics().values())]
    return found


def _recorded(pace: Pace, observer: Observer) -> tuple[TaskStatistics, list[SiteStatistics]]:
    """Return the statistics of a loop and its sites, by one walk over its tasks in pieces where it is native."""
    scan = observer.scan(pace.pause) if isinstance(observer, NativeObserver) else None
    if scan is None or not isinstance(observer, NativeObserver):
        return observer.statistics(), observer.sites()
    record = observer.scanned_statistics(scan)
    pace.rest()
    sites = observer.scanned_sites(scan)
    pace.rest()
    return record, sites


def _sites(pace: Pace, found: list[SiteStatistics], most: int) -> dict[str, Any]:
    every = sorted(found, key=lambda site: (-site.live, -site.created))
    return {
        "sites": [plain_site(site) for site in pace.over(every[:most])],
        "sites_left_out": max(0, len(every) - most),
    }


def blocked_loop(loop: asyncio.AbstractEventLoop, observer: Observer) -> dict[str, Any] | None:
    """Return the callback that blocks the loop now, with its stack; None if none has run for 50 ms."""
    heartbeat = getattr(observer, "heartbeat", None)
    if heartbeat is None:
        return None
    words, now_ns = heartbeat.read(), time.monotonic_ns()
    kind, since_ns = "callback", words.callback_since_ns
    if not since_ns:
        kind, since_ns = "turn", words.turn_since_ns
    if not since_ns or not words.thread_id or now_ns - since_ns < BLOCKED_NS:
        return None
    places = list(takewhile(_is_inside, stack_of_thread(words.thread_id)))
    task = _current_task(loop)
    return {
        "since_s": since_ns / 1e9,
        "lasted_s": (now_ns - since_ns) / 1e9,
        "kind": kind,
        "task": None if task is None else short_name(task.get_name()),
        "site": plain_place(user_place(places)),
        "stack": [str(place) for place in places],
    }


def stack_of_thread(thread_id: int) -> list[Place]:
    """Return the frames of a thread, innermost first, at most 60."""
    return list(islice(outward(frame_of_thread(thread_id)), MOST_FRAMES))


def _is_inside(place: Place) -> bool:
    # the frames that run the loop are not part of the callback
    return place.function.rpartition(".")[2] != "run_forever"


def _current_task(loop: asyncio.AbstractEventLoop) -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task(loop)
    except RuntimeError:
        return None


def _connections(loop: Any) -> dict[str, Any] | None:
    core = native_core(loop)
    if core is None:
        return None
    found = core.sources()
    counts: Counter[str] = Counter()
    for source in islice(found.values(), MOST_SOURCES):
        counts[SOURCES.get(type(source).__name__, "other")] += 1
    kinds = {name: counts[name] for name in (*dict.fromkeys(SOURCES.values()), "other")}
    if len(found) > MOST_SOURCES:
        kinds["streams"] += len(found) - MOST_SOURCES
    memory = memory_statistics()
    return {**kinds, "bytes_buffered": None if memory.budget_bytes is None else memory.buffered_bytes}


def _overload(loop: Any) -> dict[str, int] | None:
    core = native_core(loop)
    if core is None:
        return None
    return {
        "deferred_reads": len(core.deferred_reads),
        "deferred_accepts": len(core.deferred_accepts),
        "shed_unread": core.shed_unread_count,
    }
