"""Rules about the lanes of executors: no worker is free, names wait in `dns`, jobs time out, workers crash."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.monitor.rules.diagnosis import Diagnosis
from penstock.monitor.texts import count_text, duration, often

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock.monitor.figures import LaneRates
    from penstock.monitor.rules.diagnosis import Observed, Rule

__all__ = ["RULES", "is_exhausted"]

# Half of the jobs that began have waited this long: a lane that keeps up has a wait near 0.
LONG_WAIT_S = 0.25
# With no job ended in this time, all workers busy and jobs queued, the lane makes no progress.
NO_PROGRESS_S = 2.0
# this many jobs for each worker ahead of a new one are a queue and not a burst
QUEUED_PER_WORKER = 2
# the share of jobs, and the least number, that time out before it is a fault
TIMEOUT_SHARE, TIMEOUT_COUNT = 0.05, 3
# a single crash is an accident, and has an exception of its own
CRASH_COUNT = 2
CAUSES = ("gil", "throttled", "descheduled", "collections")


def is_exhausted(lane: LaneRates, seconds: float) -> bool:
    """Return whether every worker is busy while jobs wait long, or are shed."""
    if not lane.workers or lane.workers_busy < lane.workers or not lane.queued + lane.waiting:
        return False
    ended = sum(lane.completed.values())
    is_still = not ended and seconds >= NO_PROGRESS_S and lane.queued >= QUEUED_PER_WORKER * lane.workers
    return lane.wait.p50_s >= LONG_WAIT_S or is_still or lane.shed.get("full", 0) > 0


def lane_full(seen: Observed) -> Iterator[Diagnosis]:
    """Name a lane whose workers are all busy while jobs wait."""
    for loop in seen.figures.loops:
        for lane in loop.lanes:
            if is_exhausted(lane, seen.figures.seconds):
                yield _dns(lane) if lane.name == "dns" else _full(lane, seen)


def _full(lane: LaneRates, seen: Observed) -> Diagnosis:
    shed = f", and {count_text(lane.shed['full'], 'job')} shed" if lane.shed.get("full") else ""
    return Diagnosis(
        kind="lane_full",
        sentence=(
            f"lane {lane.name!r} is exhausted: {_all(lane)} busy, {_queue(lane)}{shed}; a job takes "
            f"{duration(lane.run.p50_s) if lane.run.count else 'longer than was observed'}"
        ),
        next_step=_step(lane, seen),
        rank=80.0,
        severity="error",
        evidence=_evidence(lane),
        explained_by=CAUSES,
    )


def _dns(lane: LaneRates) -> Diagnosis:
    return Diagnosis(
        kind="dns_full",
        sentence=f"too many host names wait in lane 'dns': {_all(lane)} busy with one each, {_queue(lane)}",
        next_step="check the name server and /etc/resolv.conf, keep connections, or raise executors.dns workers",
        rank=82.0,
        severity="error",
        evidence=_evidence(lane),
        explained_by=CAUSES,
    )


def _step(lane: LaneRates, seen: Observed) -> str:
    cores = seen.figures.process.cores
    if lane.kind == "processes" and cores and lane.workers >= cores:
        return f"shorten its jobs or bound its callers: it has a process for each of {cores:g} cores already"
    return f"raise executors.{'' if lane.name in ('io', 'cpu') else 'lanes.'}{lane.name} workers, or bound its callers"


def _all(lane: LaneRates) -> str:
    workers = count_text(lane.workers, "worker")
    return f"all {workers}" if lane.workers > 1 else "its one worker"


def _queue(lane: LaneRates) -> str:
    wait = f" for {duration(lane.wait.p50_s)}" if lane.wait.count else ""
    return f"{count_text(lane.queued + lane.waiting, 'job')} wait{wait}"


def _evidence(lane: LaneRates) -> dict[str, object]:
    return {
        "lane": lane.name,
        "workers": lane.workers,
        "workers_busy": lane.workers_busy,
        "queued": lane.queued + lane.waiting,
        "wait_p50_s": lane.wait.p50_s,
        "shed": dict(lane.shed),
    }


def job_timeouts(seen: Observed) -> Iterator[Diagnosis]:
    """Name a lane whose jobs miss their deadlines."""
    for loop in seen.figures.loops:
        for lane in loop.lanes:
            late, ended = lane.completed.get("timeout", 0), sum(lane.completed.values())
            if late >= TIMEOUT_COUNT and late >= TIMEOUT_SHARE * ended:
                yield Diagnosis(
                    kind="deadlines",
                    sentence=(
                        f"jobs in lane {lane.name!r} miss their deadlines: {late:,} of {ended:,} timed out "
                        f"in {duration(seen.figures.seconds)}"
                    ),
                    next_step=_late_step(lane),
                    rank=70.0,
                    severity="error",
                    evidence={**_evidence(lane), "timeouts": late},
                    explained_by=(*CAUSES, "blocked", "lane_full", "dns_full", "overloaded"),
                )


def _late_step(lane: LaneRates) -> str:
    if lane.wait.p50_s > lane.run.p50_s:
        return f"they wait {duration(lane.wait.p50_s)} for a worker: add workers, or shed earlier by a shorter queue"
    return "give them more time, or make the job shorter"


def crashes(seen: Observed) -> Iterator[Diagnosis]:
    """Name a lane whose workers crash repeatedly."""
    for loop in seen.figures.loops:
        for lane in loop.lanes:
            count = lane.restarts.get("crash", 0)
            if count >= CRASH_COUNT:
                yield Diagnosis(
                    kind="crashes",
                    sentence=f"workers of lane {lane.name!r} crash ({often(count, seen.figures.seconds)})",
                    next_step="read the exception of the lost jobs: a signal, or a kill for lack of memory",
                    rank=75.0,
                    severity="error",
                    evidence={"lane": lane.name, "count": count},
                )


RULES: tuple[Rule, ...] = (lane_full, job_timeouts, crashes)
