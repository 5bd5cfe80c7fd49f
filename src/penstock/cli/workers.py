"""The number of workers of each lane on this machine, with the reason for it."""

from dataclasses import asdict, dataclass
from typing import Any

from penstock.config import ExecutorsConfig, LaneConfig
from penstock.executors.cores import Cores, current_cores, worker_limit
from penstock.executors.threads.lane import EXTRA_THREADS, MOST_THREADS

__all__ = ["Workers", "count_workers", "render_workers", "workers_as_json"]


@dataclass(frozen=True, slots=True)
class Workers:
    """The workers of a lane: `count` at first, at most `limit`; None where an external executor decides."""

    kind: str
    count: int | None
    limit: int | None
    reason: str


def count_workers(config: ExecutorsConfig, cores: Cores | None = None) -> dict[str, Workers]:
    """Return the workers of each lane by name."""
    cores = cores or current_cores()
    return {name: _workers(lane, cores) for name, lane in config.declared().items()}


def _workers(lane: LaneConfig, cores: Cores) -> Workers:
    kind = lane.kind if isinstance(lane.kind, str) else f"executor ({type(lane.kind).__name__})"
    if kind == "threads":
        return _threads(lane, cores)
    if lane.workers is not None:
        return Workers(kind, lane.workers, lane.workers, "config")
    if kind not in ("processes", "interpreters"):
        return Workers(kind, None, None, "the cluster decides" if "://" in kind else "the executor decides")
    count = worker_limit(lane, cores)
    reason = _cores_reason(cores) if count == cores.chosen else f"min_workers, more than the {_cores_reason(cores)}"
    return Workers(kind, count, count, reason)


def _threads(lane: LaneConfig, cores: Cores) -> Workers:
    limit = lane.workers or MOST_THREADS
    sized = cores.chosen + EXTRA_THREADS
    count = min(limit, max(sized, lane.min_workers))
    if count == lane.workers:
        return Workers("threads", count, limit, "config")
    reason = f"{_cores_reason(cores)} and {EXTRA_THREADS} more" if count == sized else "min_workers"
    grown = "config" if lane.workers else "penstock's most"
    return Workers("threads", count, limit, f"{reason}; {limit} ({grown}) while jobs wait and threads are blocked")


def _cores_reason(cores: Cores) -> str:
    number = f"{cores.chosen} usable core{'s' * (cores.chosen != 1)}"
    if cores.reason == "override":
        return f"{number} (PENSTOCK_CPUS)"
    if cores.reason == "quota":
        return f"{number} (cgroup quota of {cores.quota_cores:g}, rounded up)"
    return f"{number} (affinity)"


def render_workers(workers: dict[str, Workers]) -> list[str]:
    """Return a line for each lane."""
    names = max(len(name) for name in workers)
    width = max(len(each.kind) for each in workers.values())
    return [f"  {name:{names}}  {each.kind:{width}}  {_count(each)}" for name, each in workers.items()]


def _count(workers: Workers) -> str:
    if workers.count is None:
        return workers.reason
    return f"{workers.count} worker{'s' * (workers.count != 1)}: {workers.reason}"


def workers_as_json(workers: dict[str, Workers]) -> dict[str, Any]:
    """Return the workers as data, by lane."""
    return {name: asdict(each) for name, each in workers.items()}
