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
    """One lane of executors: what runs its jobs, how many at once, how many wait, and what a full queue means."""

    # threads, processes, interpreters (3.14), somebody's cluster, somebody's executor or a function that makes one
    kind: str | concurrent.futures.Executor | Callable[..., concurrent.futures.Executor] = key(  # noqa: RUF009
        "threads", worker_kind(("threads", "processes", "interpreters"), ("dask", "ray"))
    )
    # None: processes as many as usable cores; threads grow with the load, up to a cap
    workers: int | None = key(None, optional(WORKERS, "sized to the machine"))
    # started when the loop starts to run, and kept when idle
    min_workers: int = key(0, whole(0, "workers", highest=10_000))
    # the queue is bounded in jobs and in bytes of what they carry
    queue_jobs: int = key(10_000, whole(1, "jobs"))
    queue_bytes: int = key(268_435_456, whole(1, "bytes"))
    # what a full queue means to a new job: it waits, is refused, is run by its caller, or takes the oldest one's place
    full: Literal["wait", "shed", "caller_runs", "drop_oldest"] = key(
        "wait", choice("wait", "shed", "caller_runs", "drop_oldest")
    )
    # for jobs that name none, from offer to result
    timeout_s: float | None = key(None, optional(seconds(zero=False), "no limit"))
    # an idle worker beyond min_workers ends
    idle_s: float = key(60.0, seconds(zero=True))
    # from here on, nothing that threads know. A fork of a process with threads may copy locks that nobody releases
    start: Literal["forkserver", "spawn", "fork"] = key(
        "forkserver", choice("forkserver", "spawn", "fork"), **NOT_THREADS
    )
    # imported before the first job
    preload: tuple[str, ...] = key((), MODULES, **NOT_THREADS)
    # called in each worker before its first job
    initializer: Callable[[], object] | str | None = key(None, optional(CALLABLE, "nothing"), **NOT_THREADS)  # noqa: RUF009
    # between starting a worker and its being ready, preload and initializer included: else it is ended
    start_s: float | None = key(300.0, optional(seconds(zero=False), "no limit"), **NOT_THREADS)
    # the context variables that travel with a job
    context: tuple[str, ...] = key((), REFERENCES, **NOT_THREADS)
    # how far workers stand back behind the loop for a core (Unix's nice, 0 to 19): at 0 each of them may keep the loop
    # from its core for milliseconds at a time; at 19 they use what is left over
    nice: int = key(19, whole(0, "steps", highest=19), **NOT_THREADS)
    # between interrupting a cancelled or late job and killing its worker
    grace_s: float = key(1.0, seconds(zero=True), **NOT_THREADS)
    # a job that has killed so many workers is refused
    poison_kills: int = key(3, whole(1, "workers"), **NOT_THREADS)
    # a worker that has done so many jobs, is so old or so large is replaced
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
    """The lanes that blocking calls run in, by name."""

    # what run_in_executor(None, ...) runs in: a lane, or an executor of the program's own. The loop shuts that one when
    # it closes: an object serves one loop, a function makes one for each
    default: str | concurrent.futures.Executor = key("io", DEFAULT_EXECUTOR)  # noqa: RUF009
    # calls that wait: files, drivers without asyncio
    io: LaneConfig = key(LaneConfig(), lane(LaneConfig, "threads"))  # noqa: RUF009
    # calls that compute
    cpu: LaneConfig = key(LaneConfig("processes"), lane(LaneConfig, "processes"))  # noqa: RUF009
    # getaddrinfo and getnameinfo alone: blocking work never delays a connect
    dns: LaneConfig = key(LaneConfig(), lane(LaneConfig, "threads"))  # noqa: RUF009
    # the program's own: db, gpu, ...
    lanes: Mapping[str, LaneConfig] = field(
        default_factory=dict, hash=False, metadata={"kind": lanes(LaneConfig, reserved=("io", "cpu", "dns"))}
    )

    def __post_init__(self) -> None:
        Group.__post_init__(self)
        declared = self.declared()
        if isinstance(self.default, str) and ":" not in self.default and self.default not in declared:
            allowed = f"a lane ({', '.join(declared)}),{DEFAULT_EXECUTOR.allowed.partition(',')[2]}"
            raise ConfigError.bad_value("executors.default", self.default, "ExecutorsConfig()", allowed)
        for name, told in declared.items():
            _refuse_what_threads_ignore(name if name in ("io", "cpu", "dns") else f"lanes.{name}", told)

    def declared(self) -> dict[str, LaneConfig]:
        """Every lane by its name, penstock's three first."""
        return {"io": self.io, "cpu": self.cpu, "dns": self.dns, **self.lanes}


def _refuse_what_threads_ignore(name: str, told: LaneConfig) -> None:
    for item in fields(told) if told.kind == "threads" else ():
        value = getattr(told, item.name)
        if "not_threads" in item.metadata and value != item.default:
            key, allowed = f"executors.{name}.{item.name}", "only its default in a lane of threads"
            raise ConfigError.bad_value(key, value, "ExecutorsConfig()", allowed)
