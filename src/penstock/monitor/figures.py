"""The figures of a process in an interval: the rates, quantiles and gauges between two snapshots.

A view and a rule read these and never a raw answer. Knows the keys of the protocol, and no socket. Long, because it
names each key of the protocol once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from penstock.monitor.change import Change, pairs
from penstock.tasks.place import Place
from penstock.times import Times

__all__ = [
    "Blocked",
    "Figures",
    "GateRates",
    "LaneRates",
    "LoopRates",
    "ProcessRates",
    "SiteRates",
    "figures",
    "place_of",
]

Counts = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class ProcessRates:
    """The process. Gauges are of the later snapshot."""

    pid: int = 0
    name: str = ""
    python: str = ""
    penstock: str = ""
    uptime_s: float = 0.0
    # usable cores; of them by the CPU quota, None without one; the average number in use
    cores: float = 0.0
    quota_cores: float | None = None
    cores_used: float = 0.0
    # the share of the interval for which the quota stopped the process's cgroup
    throttled_share: float = 0.0
    rss_bytes: int = 0
    rss_grown_bytes: int = 0
    descriptors: int = 0
    descriptor_limit: int | None = None
    threads: int = 0
    # garbage collections of the interval, and their share of it
    gc_count: int = 0
    gc_share: float = 0.0
    # the supervisor's pid and the worker's number
    supervisor: int | None = None
    worker: int | None = None
    actions: bool = False


@dataclass(frozen=True, slots=True)
class Blocked:
    """A callback or a turn that runs now and has done so for long."""

    lasted_s: float
    # callback or turn
    kind: str = "callback"
    task: str | None = None
    site: Place | None = None
    # "app.py:41 in handler", innermost first
    stack: tuple[str, ...] = ()
    since_s: float = 0.0


@dataclass(frozen=True, slots=True)
class SiteRates:
    """The tasks of one site of creation."""

    site: Place | None
    live: int = 0
    created_per_s: float = 0.0
    ended_per_s: float = 0.0
    failed_per_s: float = 0.0
    cancelled_per_s: float = 0.0
    # shares of the interval: of the loop's thread that ran them; in the ready queue, which may be more than 1
    running_share: float = 0.0
    ready_share: float = 0.0
    latency: Times = field(default_factory=Times)


@dataclass(frozen=True, slots=True)
class LaneRates:
    """A lane of executors."""

    name: str
    kind: str = ""
    workers: int = 0
    workers_busy: int = 0
    workers_limit: int = 0
    queued: int = 0
    waiting: int = 0
    running: int = 0
    queue_limit: int = 0
    # jobs that ended, by outcome, and jobs shed, by reason: counts of the interval
    completed: Counts = field(default_factory=dict)
    shed: Counts = field(default_factory=dict)
    restarts: Counts = field(default_factory=dict)
    jobs_per_s: float = 0.0
    sheds_per_s: float = 0.0
    wait: Times = field(default_factory=Times)
    run: Times = field(default_factory=Times)


@dataclass(frozen=True, slots=True)
class GateRates:
    """A gate."""

    name: str
    # None: unbounded
    limit: float | None = None
    scale: float = 1.0
    limit_reason: str = ""
    inflight: int = 0
    queued: int = 0
    max_queued: int | None = None
    oldest_wait_s: float = 0.0
    streams: int = 0
    admitted_per_s: float = 0.0
    # requests that finished: the goodput
    goodput_per_s: float = 0.0
    sheds_per_s: float = 0.0
    # counts of the interval
    admitted: int = 0
    finished: int = 0
    sheds: Counts = field(default_factory=dict)
    wait: Times = field(default_factory=Times)
    service: Times = field(default_factory=Times)


@dataclass(frozen=True, slots=True)
class LoopRates:
    """A loop, with its sites and lanes. Of a partial answer only the first fields are known."""

    name: str
    running: bool = True
    thread_id: int | None = None
    native_id: int | None = None
    blocked: Blocked | None = None
    # the other fields are known
    known: bool = True
    implementation: str = ""
    level: str = ""
    # the share of the interval for which callbacks ran
    utilization: float = 0.0
    # durations of the interval: how late callbacks ran, how long turns and callbacks lasted
    delay: Times = field(default_factory=Times)
    turn: Times = field(default_factory=Times)
    callback: Times = field(default_factory=Times)
    turns_per_s: float = 0.0
    callbacks_per_s: float = 0.0
    polls_per_s: float = 0.0
    events_per_s: float = 0.0
    ready_count: int = 0
    ready_age_s: float = 0.0
    timer_count: int = 0
    tasks_live: int = 0
    created_per_s: float = 0.0
    ended_per_s: float = 0.0
    failed_per_s: float = 0.0
    cancelled_per_s: float = 0.0
    steps_per_s: float = 0.0
    latency: Times = field(default_factory=Times)
    step: Times = field(default_factory=Times)
    start_delay: Times = field(default_factory=Times)
    # counts of the interval
    lost: int = 0
    stalls: Counts = field(default_factory=dict)
    findings: Counts = field(default_factory=dict)
    overload: Counts = field(default_factory=dict)
    dropped: int = 0
    errors: int = 0
    # streams, listeners, datagrams, pipes, other: counts now
    connections: Counts = field(default_factory=dict)
    bytes_buffered: int | None = None
    sites: tuple[SiteRates, ...] = ()
    sites_left_out: int = 0
    lanes: tuple[LaneRates, ...] = ()


@dataclass(frozen=True, slots=True)
class Figures:
    """All figures of one process in an interval of `seconds`, which ended at `at_s` (monotonic)."""

    seconds: float
    at_s: float
    wall_time_s: float
    process: ProcessRates
    loops: tuple[LoopRates, ...] = ()
    gates: tuple[GateRates, ...] = ()
    # counts of the interval: "source/reason" of sheds, reason of disconnects
    sheds: Counts = field(default_factory=dict)
    disconnects: Counts = field(default_factory=dict)
    # the process could not answer in full: the GIL was held
    partial: bool = False
    reason: str = ""
    unread: tuple[str, ...] = ()

    @property
    def sheds_per_s(self) -> float:
        """All sheds in each second."""
        return sum(self.sheds.values()) / self.seconds if self.seconds > 0 else 0.0


def figures(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> Figures:
    """Return the figures between two snapshots of one process; without one before, since the process's start.

    Any key may be missing, as in a partial answer. A snapshot of another process before counts as none.
    """
    if before is not None and not _is_same_process(before, now):
        before = None
    at_s, process = float(now.get("at_s") or 0.0), now.get("process") or {}
    seconds = max(0.0, at_s - before.get("at_s", 0.0)) if before is not None else float(process.get("uptime_s") or 0.0)
    whole = Change(now, before, seconds)
    return Figures(
        seconds=seconds,
        at_s=at_s,
        wall_time_s=float(now.get("wall_time_s") or 0.0),
        process=_process(whole.inner("process"), int(now.get("pid") or 0)),
        loops=tuple(_loop(each) for each in pairs(now.get("loops"), whole.before.get("loops"), "name", seconds)),
        gates=tuple(_gate(each) for each in pairs(now.get("gates"), whole.before.get("gates"), "name", seconds)),
        sheds=whole.counts("sheds"),
        disconnects=whole.counts("disconnects"),
        partial=bool(now.get("partial")),
        reason=str(now.get("reason") or ""),
        unread=tuple(now.get("unread") or ()),
    )


def _is_same_process(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    former, current = before.get("process") or {}, now.get("process") or {}
    pids = [answer.get("pid") or process.get("pid") for answer, process in ((before, former), (now, current))]
    lived_s, former_s = current.get("uptime_s"), former.get("uptime_s")
    has_restarted = lived_s is not None and former_s is not None and lived_s < former_s
    return (None in pids or pids[0] == pids[1]) and not has_restarted


def place_of(answered: Mapping[str, Any] | None) -> Place | None:
    """Return the place of a `place` object in an answer."""
    if not answered:
        return None
    return Place(answered.get("file") or "", answered.get("line") or 0, answered.get("function") or "")


def _process(each: Change, pid: int) -> ProcessRates:
    now = each.now
    worker = now.get("worker") or {}
    return ProcessRates(
        pid=pid or each.gauge_count("pid"),
        name=now.get("name") or "",
        python=now.get("python") or "",
        penstock=now.get("penstock") or "",
        uptime_s=each.gauge("uptime_s"),
        cores=each.gauge("cores"),
        quota_cores=now.get("quota_cores"),
        cores_used=each.rate("cpu_s"),
        throttled_share=each.rate("throttled_s"),
        rss_bytes=each.gauge_count("rss_bytes"),
        rss_grown_bytes=_moved(each, "rss_bytes"),
        descriptors=each.gauge_count("descriptors"),
        descriptor_limit=now.get("descriptors_limit"),
        threads=each.gauge_count("threads"),
        gc_count=each.inner("gc").count("collections"),
        gc_share=each.inner("gc").rate("total_s"),
        supervisor=worker.get("supervisor"),
        worker=worker.get("number"),
        actions=bool(now.get("actions")),
    )


def _moved(each: Change, key: str) -> int:
    """Return the difference of a gauge, which may be negative; 0 if it is missing on one side."""
    now, before = each.now.get(key), each.before.get(key)
    return 0 if now is None or before is None else int(now - before)


def _loop(each: Change) -> LoopRates:
    """Return a loop's figures. Long because it names every key of the loop once."""
    now, tasks = each.now, each.inner("tasks")
    blocked = _blocked(now.get("blocked"))
    connections = dict(now.get("connections") or {})
    buffered = connections.pop("bytes_buffered", None)
    return LoopRates(
        name=now.get("name") or "",
        running=bool(now.get("running", True)),
        thread_id=now.get("thread_id"),
        native_id=now.get("native_id"),
        blocked=blocked,
        known="active_s" in now,
        implementation=now.get("implementation") or "",
        level=now.get("level") or "",
        utilization=_utilization(each, blocked),
        delay=each.times("delay"),
        turn=each.times("turn"),
        callback=each.times("callback"),
        turns_per_s=each.rate("turns"),
        callbacks_per_s=each.share(sum(each.counts("callbacks").values())),
        polls_per_s=each.rate("polls"),
        events_per_s=each.rate("events"),
        ready_count=each.gauge_count("ready_count"),
        ready_age_s=each.gauge("ready_age_s"),
        timer_count=each.gauge_count("timer_count"),
        tasks_live=tasks.gauge_count("live"),
        created_per_s=tasks.rate("created"),
        ended_per_s=_ended_per_s(tasks),
        failed_per_s=tasks.rate("failed"),
        cancelled_per_s=tasks.rate("cancelled"),
        steps_per_s=tasks.rate("steps"),
        latency=tasks.times("latency"),
        step=tasks.times("step"),
        start_delay=tasks.times("start_delay"),
        lost=tasks.count("lost"),
        stalls=each.counts("stalls"),
        findings=each.counts("findings"),
        overload=_overload(each.inner("overload")),
        dropped=each.count("dropped"),
        errors=each.count("errors"),
        connections={kind: count for kind, count in connections.items() if count is not None},
        bytes_buffered=buffered,
        sites=tuple(_site(site) for site in pairs(now.get("sites"), each.before.get("sites"), "site", each.seconds)),
        sites_left_out=each.gauge_count("sites_left_out"),
        lanes=tuple(_lane(lane) for lane in pairs(now.get("lanes"), each.before.get("lanes"), "name", each.seconds)),
    )


def _blocked(answered: Mapping[str, Any] | None) -> Blocked | None:
    if not answered:
        return None
    return Blocked(
        lasted_s=answered.get("lasted_s") or 0.0,
        kind=answered.get("kind") or "callback",
        task=answered.get("task"),
        site=place_of(answered.get("site")),
        stack=tuple(answered.get("stack") or ()),
        since_s=answered.get("since_s") or 0.0,
    )


def _utilization(each: Change, blocked: Blocked | None) -> float:
    """Return the active share. The loop counts a turn at its end, so the running callback is added."""
    active_s, idle_s = each.amount("active_s"), each.amount("idle_s")
    running_s = min(blocked.lasted_s, each.seconds) if blocked is not None and each.seconds else 0.0
    total_s = max(active_s + idle_s, each.seconds if running_s else 0.0)
    return min(1.0, (active_s + running_s) / total_s) if total_s > 0 else 0.0


def _overload(each: Change) -> dict[str, int]:
    """Return the deferred reads and accepts now, and the clients shed unread in the interval."""
    gauges = {name: each.gauge_count(name) for name in each.now if name != "shed_unread"}
    return {**gauges, "shed_unread": each.count("shed_unread")} if each.now else {}


def _ended_per_s(each: Change) -> float:
    return each.rate("completed") + each.rate("failed") + each.rate("cancelled")


def _site(each: Change) -> SiteRates:
    return SiteRates(
        site=place_of(each.now.get("site")),
        live=each.gauge_count("live"),
        created_per_s=each.rate("created"),
        ended_per_s=_ended_per_s(each),
        failed_per_s=each.rate("failed"),
        cancelled_per_s=each.rate("cancelled"),
        running_share=each.rate("running_s"),
        ready_share=each.rate("ready_s"),
        latency=each.times("latency"),
    )


def _lane(each: Change) -> LaneRates:
    completed, shed = each.counts("completed"), each.counts("shed")
    return LaneRates(
        name=each.now.get("name") or "",
        kind=each.now.get("kind") or "",
        workers=each.gauge_count("workers"),
        workers_busy=each.gauge_count("workers_busy"),
        workers_limit=each.gauge_count("workers_limit"),
        queued=each.gauge_count("queued"),
        waiting=each.gauge_count("waiting"),
        running=each.gauge_count("running"),
        queue_limit=each.gauge_count("queue_limit"),
        completed=completed,
        shed=shed,
        restarts=each.counts("restarts"),
        jobs_per_s=each.share(sum(completed.values())),
        sheds_per_s=each.share(sum(shed.values())),
        wait=each.times("wait"),
        run=each.times("run"),
    )


def _gate(each: Change) -> GateRates:
    sheds = each.counts("sheds")
    return GateRates(
        name=each.now.get("name") or "",
        limit=each.now.get("limit"),
        scale=1.0 if each.now.get("scale") is None else each.now["scale"],
        limit_reason=each.now.get("limit_reason") or "",
        inflight=each.gauge_count("inflight"),
        queued=each.gauge_count("queued"),
        max_queued=each.now.get("max_queued"),
        oldest_wait_s=each.gauge("oldest_wait_s"),
        streams=each.gauge_count("streams"),
        admitted_per_s=each.rate("admitted"),
        goodput_per_s=each.rate("finished"),
        sheds_per_s=each.share(sum(sheds.values())),
        admitted=each.count("admitted"),
        finished=each.count("finished"),
        sheds=sheds,
        wait=each.times("wait"),
        service=each.times("service"),
    )
