"""The config of executors: lanes by name. No behaviour."""

from __future__ import annotations

import concurrent.futures  # noqa: TC003 (get_type_hints works on a config)
from collections.abc import Callable, Mapping  # noqa: TC003
from dataclasses import dataclass, field, fields
from typing import Literal

from penstock.config.base import Group, key
from penstock.config.converters import (
    CALLABLE,
    DEFAULT_EXECUTOR,
    MODULES,
    REFERENCES,
    choice,
    optional,
    seconds,
    whole,
    worker_kind,
)
from penstock.config.lanes import lane, lanes
from penstock.errors import ConfigError

__all__ = ["ExecutorsConfig", "LaneConfig"]


WORKERS = whole(1, "workers", highest=10_000)
NOT_THREADS = {"not_threads": True}


@dataclass(frozen=True, slots=True)
class LaneConfig(Group):
    """One lane of executors: its workers, its queue, and the policy of a full queue."""

    # threads, processes, interpreters (3.14), a cluster's address, an executor, or a function that makes one
    kind: str | concurrent.futures.Executor | Callable[..., concurrent.futures.Executor] = key(  # noqa: RUF009
        "threads", worker_kind(("threads", "processes", "interpreters"), ("dask", "ray"))
    )
    # None: processes as many as usable cores; threads grow with the load, up to a cap
    workers: int | None = key(None, optional(WORKERS, "sized to the machine"))
    # started when the loop starts to run, and kept when idle
    min_workers: int = key(0, whole(0, "workers", highest=10_000))
    # bounds of the queue: jobs, and bytes of their arguments
    queue_jobs: int = key(10_000, whole(1, "jobs"))
    queue_bytes: int = key(268_435_456, whole(1, "bytes"))
    # with a full queue a new job waits, is shed, is run by its caller, or replaces the oldest job
    full: Literal["wait", "shed", "caller_runs", "drop_oldest"] = key(
        "wait", choice("wait", "shed", "caller_runs", "drop_oldest")
    )
    # for jobs without a timeout of their own: from the call to the result
    timeout_s: float | None = key(None, optional(seconds(zero=False), "no limit"))
    # an idle worker beyond min_workers ends
    idle_s: float = key(60.0, seconds(zero=True))
    # the keys below do not apply to threads. A fork of a process with threads may copy a locked lock
    start: Literal["forkserver", "spawn", "fork"] = key(
        "forkserver", choice("forkserver", "spawn", "fork"), **NOT_THREADS
    )
    # imported before the first job
    preload: tuple[str, ...] = key((), MODULES, **NOT_THREADS)
    # called in each worker before its first job
    initializer: Callable[[], object] | str | None = key(None, optional(CALLABLE, "nothing"), **NOT_THREADS)  # noqa: RUF009
    # from the start of a worker until it is ready, preload and initializer included; a slower worker is ended
    start_s: float | None = key(300.0, optional(seconds(zero=False), "no limit"), **NOT_THREADS)
    # the context variables that travel with a job
    context: tuple[str, ...] = key((), REFERENCES, **NOT_THREADS)
    # the niceness of workers (0 to 19): at 0 a worker may delay the loop by milliseconds at a time; at 19 workers use
    # the remaining CPU time
    nice: int = key(19, whole(0, "steps", highest=19), **NOT_THREADS)
    # from the interrupt of a cancelled or late job to the kill of its worker
    grace_s: float = key(1.0, seconds(zero=True), **NOT_THREADS)
    # a job during which so many workers died is not run again
    poison_kills: int = key(3, whole(1, "workers"), **NOT_THREADS)
    # a worker with more jobs, age or memory is replaced
    max_jobs: int | None = key(None, optional(whole(1, "jobs"), "never for that"), **NOT_THREADS)
    max_age_s: float | None = key(None, optional(seconds(zero=False), "never for that"), **NOT_THREADS)
    max_rss_bytes: int | None = key(None, optional(whole(1, "bytes"), "never for that"), **NOT_THREADS)
    # shared memory of each worker for large buffers
    arena_bytes: int = key(134_217_728, whole(0, "bytes"), **NOT_THREADS)

    def __post_init__(self) -> None:
        Group.__post_init__(self)
        if self.workers is not None and self.min_workers > self.workers:
            allowed = f"at most the {self.workers} of workers"
            raise ConfigError.bad_value("lane.min_workers", self.min_workers, "LaneConfig()", allowed)


@dataclass(frozen=True, slots=True)
class ExecutorsConfig(Group):
    """The lanes of blocking calls, by name."""

    # the executor of run_in_executor(None, ...): a lane, an executor object, or a function that makes one. A loop that
    # closes shuts it down: an object serves one loop, a function makes one for each
    default: str | concurrent.futures.Executor = key("io", DEFAULT_EXECUTOR)  # noqa: RUF009
    # blocking calls: files, drivers without asyncio
    io: LaneConfig = key(LaneConfig(), lane(LaneConfig, "threads"))  # noqa: RUF009
    # CPU-bound calls
    cpu: LaneConfig = key(LaneConfig("processes"), lane(LaneConfig, "processes"))  # noqa: RUF009
    # getaddrinfo and getnameinfo only: blocking work never delays a connect
    dns: LaneConfig = key(LaneConfig(), lane(LaneConfig, "threads"))  # noqa: RUF009
    # further lanes by name: db, gpu, ...
    lanes: Mapping[str, LaneConfig] = field(
        default_factory=dict, hash=False, metadata={"converter": lanes(LaneConfig, reserved=("io", "cpu", "dns"))}
    )

    def __post_init__(self) -> None:
        Group.__post_init__(self)
        declared = self.declared()
        if isinstance(self.default, str) and ":" not in self.default and self.default not in declared:
            allowed = f"a lane ({', '.join(declared)}),{DEFAULT_EXECUTOR.allowed.partition(',')[2]}"
            raise ConfigError.bad_value("executors.default", self.default, "ExecutorsConfig()", allowed)
        for name, lane_config in declared.items():
            _reject_keys_of_processes(name if name in ("io", "cpu", "dns") else f"lanes.{name}", lane_config)

    def declared(self) -> dict[str, LaneConfig]:
        """Return every lane by name, the three predefined ones first."""
        return {"io": self.io, "cpu": self.cpu, "dns": self.dns, **self.lanes}


def _reject_keys_of_processes(name: str, lane_config: LaneConfig) -> None:
    for item in fields(lane_config) if lane_config.kind == "threads" else ():
        value = getattr(lane_config, item.name)
        if "not_threads" in item.metadata and value != item.default:
            key, allowed = f"executors.{name}.{item.name}", "only its default in a lane of threads"
            raise ConfigError.bad_value(key, value, "ExecutorsConfig()", allowed)
