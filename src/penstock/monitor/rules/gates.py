"""Rules about gates and clients: refusals while the process is idle, missed deadlines, clients that are too slow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.monitor.rules.diagnosis import Diagnosis
from penstock.monitor.rules.executors import is_exhausted
from penstock.monitor.texts import count_text, duration, share_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock.monitor.figures import GateRates
    from penstock.monitor.rules.diagnosis import Observed, Rule

__all__ = ["RULES"]

# Below this utilization of the busiest loop, a refusal did not protect the loop.
IDLE_SHARE = 0.5
# the same for the process: other threads may have the work
IDLE_CORES_SHARE = 0.5
# refusals below both are single events: a burst, a probe
SHED_SHARE, SHED_COUNT = 0.05, 10
# the reasons that a higher limit would have avoided
BY_LIMIT = ("limit", "full", "wait", "expired", "deadline")
BY_DEADLINE = ("deadline", "expired")
# a few slow clients are normal on the internet
SLOW_COUNT, SLOW_SHARE = 10, 0.1
SLOW = ("slow_reader", "receive")
CAUSES = ("blocked", "gil", "collections", "throttled", "descheduled", "long_turn")
CONGESTED = ("await_cycle", "stuck", "lane_full", "dns_full", "overloaded")


def limit_low(seen: Observed) -> Iterator[Diagnosis]:
    """Name a gate that refuses requests while neither the loop nor a lane nor the CPU is busy."""
    if not _is_idle(seen):
        return
    for gate in seen.figures.gates:
        count = _shed(gate, *BY_LIMIT)
        if not _is_many(gate, count) or gate.limit_reason == "deadline":
            continue
        yield Diagnosis(
            kind="limit_low",
            sentence=(
                f"gate {gate.name!r} refuses while the process is idle: {count:,} of {count + gate.admitted:,} in "
                f"{duration(seen.figures.seconds)} at a limit of {gate.limit or 0:g}, the loop busy for "
                f"{share_text(seen.utilization)}"
            ),
            next_step="raise the limit, or set it to auto, unless it protects a service behind this one",
            rank=72.0,
            severity="error",
            evidence={"gate": gate.name, "limit": gate.limit, "sheds": dict(gate.sheds)},
            explained_by=(*CAUSES, *CONGESTED),
        )


def _is_idle(seen: Observed) -> bool:
    process = seen.figures.process
    usable = process.quota_cores or process.cores or 1.0
    has_full_lane = any(is_exhausted(lane, seen.figures.seconds) for loop in seen.figures.loops for lane in loop.lanes)
    is_cpu_idle = process.cores_used < IDLE_CORES_SHARE * usable
    return seen.utilization < IDLE_SHARE and is_cpu_idle and not has_full_lane


def _shed(gate: GateRates, *reasons: str) -> int:
    return sum(gate.sheds.get(reason, 0) for reason in reasons)


def _is_many(gate: GateRates, count: int) -> bool:
    return count >= SHED_COUNT and count >= SHED_SHARE * (count + gate.admitted)


def missed_deadlines(seen: Observed) -> Iterator[Diagnosis]:
    """Name a gate whose requests cannot end within their deadline."""
    for gate in seen.figures.gates:
        count = _shed(gate, *BY_DEADLINE)
        if not _is_many(gate, count):
            continue
        yield Diagnosis(
            kind="deadlines",
            sentence=(
                f"requests at gate {gate.name!r} miss their deadlines: {count:,} of {count + gate.admitted:,} in "
                f"{duration(seen.figures.seconds)}, 99 % of the others take up to {duration(gate.service.p99_s)}"
            ),
            next_step="shorten the service time, add workers, or give callers a longer deadline",
            rank=70.0,
            severity="error",
            evidence={"gate": gate.name, "count": count, "service_p99_s": gate.service.p99_s},
            explained_by=(*CAUSES, *CONGESTED, "limit_low"),
        )


def slow_clients(seen: Observed) -> Iterator[Diagnosis]:
    """Name connections that were closed because their clients read or sent too slowly."""
    count = sum(seen.figures.disconnects.get(reason, 0) for reason in SLOW)
    streams = sum(loop.connections.get("streams", 0) for loop in seen.figures.loops)
    if count < SLOW_COUNT or count < SLOW_SHARE * (count + streams):
        return
    reading = seen.figures.disconnects.get("slow_reader", 0) * 2 >= count
    yield Diagnosis(
        kind="slow_clients",
        sentence=(
            f"{count_text(count, 'connection')} closed in {duration(seen.figures.seconds)}: their clients "
            f"{'read' if reading else 'sent'} too slowly"
        ),
        next_step=(
            "send smaller answers or compress them, or give readers more time"
            if reading
            else "check the network and for hostile clients, or give senders more time"
        ),
        rank=40.0,
        evidence={"disconnects": dict(seen.figures.disconnects)},
        explained_by=(*CAUSES, "overloaded"),
    )


RULES: tuple[Rule, ...] = (limit_low, missed_deadlines, slow_clients)
