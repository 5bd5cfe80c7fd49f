"""The config: what is to be built, declared once, frozen and typed. No behaviour.

Six groups, each a frozen dataclass whose fields are the keys; the field's comment is its documentation. A lane of
executors is a dataclass too, the value of a key. A value that cannot be used raises `ConfigError` wherever it came
from. Reading files and variables is `sources.py`'s part.
"""

from __future__ import annotations

import concurrent.futures  # noqa: TC003 (get_type_hints works on a config)
import os
from collections.abc import Callable, Mapping  # noqa: TC003
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from penstock.config.converters import (
    BOOL,
    CALLABLE,
    DEFAULT_EXECUTOR,
    EAGER,
    FACTORY,
    FOLDER,
    HANDLERS,
    HOST,
    LIMIT,
    MODULES,
    PATHS,
    PORT,
    REFERENCES,
    BadPart,
    Kind,
    choice,
    factor,
    optional,
    seconds,
    whole,
    worker_kind,
)
from penstock.config.lanes import lane, lanes
from penstock.errors import ConfigError

__all__ = [
    "Config",
    "ExecutorsConfig",
    "LaneConfig",
    "LoopConfig",
    "PressureConfig",
    "ServeConfig",
    "SignalsConfig",
    "TasksConfig",
]


def _key(default: Any, kind: Kind, **more: object) -> Any:
    return field(default=default, metadata={"kind": kind, **more})


class _Group:
    """Checks every field against its kind; a group made in Python is as safe as one read from a file."""

    __slots__ = ()

    def __post_init__(self) -> None:
        group = type(self).__name__.removesuffix("Config").lower()
        for item in fields(self):  # type: ignore[arg-type]
            kind, value = item.metadata["kind"], getattr(self, item.name)
            key, source = f"{group}.{item.name}", f"{type(self).__name__}()"
            try:
                object.__setattr__(self, item.name, kind.accept(value))
            except BadPart as bad:
                raise ConfigError.bad_value(f"{key}.{bad.part}", bad.value, source, bad.allowed) from None
            except (ValueError, TypeError):
                raise ConfigError.bad_value(key, value, source, kind.allowed) from None


@dataclass(frozen=True, slots=True)
class LoopConfig(_Group):
    """How the loop turns. Only `debug` and `slow_callback_s` mean something to the selector loop."""

    # epoll is penstock's native reactor, selector asyncio's own loop; auto takes the best this machine has
    poller: Literal["auto", "epoll", "selector"] = _key("auto", choice("auto", "epoll", "selector"))
    # while the ready queue is busy, ask the OS for events at least every so many turns, or microseconds
    poll_every_turns: int = _key(64, whole(1, "turns", highest=1_000_000))
    poll_every_us: int = _key(100, whole(0, "microseconds", highest=60_000_000))
    # poll busily this long before blocking: latency for CPU time
    spin_us: int = _key(0, whole(0, "microseconds", highest=1_000_000))
    # read at most this much from a connection in one turn, so that a fast sender starves nobody
    read_budget_bytes: int = _key(262144, whole(1, "bytes", highest=1_073_741_824))
    # accept at most this many connections from a listener in one turn
    accept_batch: int = _key(128, whole(1, "connections", highest=65535))
    # have malloc keep freed blocks of up to 1 MiB, in the whole process: large reads cost no page faults, and memory
    # that was once used for such blocks, by anything, is not given back
    warm_allocator: bool = _key(False, BOOL)
    # None: as asyncio decides (PYTHONASYNCIODEBUG, -X dev)
    debug: bool | None = _key(None, optional(BOOL, "as asyncio decides"))
    # in debug mode, a callback that takes longer is logged
    slow_callback_s: float = _key(0.1, seconds(zero=True))


WORKERS = whole(1, "workers", highest=10_000)
NOT_THREADS = {"not_threads": True}


@dataclass(frozen=True, slots=True)
class LaneConfig(_Group):
    """One lane of executors: what runs its jobs, how many at once, how many wait, and what a full queue means."""

    # threads, processes, interpreters (3.14), somebody's cluster, somebody's executor or a function that makes one
    kind: str | concurrent.futures.Executor | Callable[..., concurrent.futures.Executor] = _key(  # noqa: RUF009
        "threads", worker_kind(("threads", "processes", "interpreters"), ("dask", "ray"))
    )
    # None: processes as many as usable cores; threads grow with the load, up to a cap
    workers: int | None = _key(None, optional(WORKERS, "sized to the machine"))
    # started when the loop starts to run, and kept when idle
    min_workers: int = _key(0, whole(0, "workers", highest=10_000))
    # the queue is bounded in jobs and in bytes of what they carry
    queue_jobs: int = _key(10_000, whole(1, "jobs"))
    queue_bytes: int = _key(268_435_456, whole(1, "bytes"))
    # what a full queue means to a new job: it waits, is refused, is run by its caller, or takes the oldest one's place
    full: Literal["wait", "shed", "caller_runs", "drop_oldest"] = _key(
        "wait", choice("wait", "shed", "caller_runs", "drop_oldest")
    )
    # for jobs that name none, from offer to result
    timeout_s: float | None = _key(None, optional(seconds(zero=False), "no limit"))
    # an idle worker beyond min_workers ends
    idle_s: float = _key(60.0, seconds(zero=True))
    # from here on, nothing that threads know. A fork of a process with threads may copy locks that nobody releases
    start: Literal["forkserver", "spawn", "fork"] = _key(
        "forkserver", choice("forkserver", "spawn", "fork"), **NOT_THREADS
    )
    # imported before the first job
    preload: tuple[str, ...] = _key((), MODULES, **NOT_THREADS)
    # called in each worker before its first job
    initializer: Callable[[], object] | str | None = _key(None, optional(CALLABLE, "nothing"), **NOT_THREADS)  # noqa: RUF009
    # between starting a worker and its being ready, preload and initializer included: else it is ended
    start_s: float | None = _key(300.0, optional(seconds(zero=False), "no limit"), **NOT_THREADS)
    # the context variables that travel with a job
    context: tuple[str, ...] = _key((), REFERENCES, **NOT_THREADS)
    # how far workers stand back behind the loop for a core (Unix's nice, 0 to 19): at 0 each of them may keep the loop
    # from its core for milliseconds at a time; at 19 they use what is left over
    nice: int = _key(19, whole(0, "steps", highest=19), **NOT_THREADS)
    # between interrupting a cancelled or late job and killing its worker
    grace_s: float = _key(1.0, seconds(zero=True), **NOT_THREADS)
    # a job that has killed so many workers is refused
    poison_kills: int = _key(3, whole(1, "workers"), **NOT_THREADS)
    # a worker that has done so many jobs, is so old or so large is replaced
    max_jobs: int | None = _key(None, optional(whole(1, "jobs"), "never for that"), **NOT_THREADS)
    max_age_s: float | None = _key(None, optional(seconds(zero=False), "never for that"), **NOT_THREADS)
    max_rss_bytes: int | None = _key(None, optional(whole(1, "bytes"), "never for that"), **NOT_THREADS)
    # shared memory of each worker for large buffers
    arena_bytes: int = _key(134_217_728, whole(0, "bytes"), **NOT_THREADS)

    def __post_init__(self) -> None:
        _Group.__post_init__(self)
        if self.workers is not None and self.min_workers > self.workers:
            allowed = f"at most the {self.workers} of workers"
            raise ConfigError.bad_value("lane.min_workers", self.min_workers, "LaneConfig()", allowed)


@dataclass(frozen=True, slots=True)
class ExecutorsConfig(_Group):
    """The lanes that blocking calls run in, by name."""

    # what run_in_executor(None, ...) runs in: a lane, or an executor of the program's own. The loop shuts that one when
    # it closes: an object serves one loop, a function makes one for each
    default: str | concurrent.futures.Executor = _key("io", DEFAULT_EXECUTOR)  # noqa: RUF009
    # calls that wait: files, drivers without asyncio
    io: LaneConfig = _key(LaneConfig(), lane(LaneConfig, "threads"))  # noqa: RUF009
    # calls that compute
    cpu: LaneConfig = _key(LaneConfig("processes"), lane(LaneConfig, "processes"))  # noqa: RUF009
    # getaddrinfo and getnameinfo alone: blocking work never delays a connect
    dns: LaneConfig = _key(LaneConfig(), lane(LaneConfig, "threads"))  # noqa: RUF009
    # the program's own: db, gpu, ...
    lanes: Mapping[str, LaneConfig] = field(
        default_factory=dict, hash=False, metadata={"kind": lanes(LaneConfig, reserved=("io", "cpu", "dns"))}
    )

    def __post_init__(self) -> None:
        _Group.__post_init__(self)
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


@dataclass(frozen=True, slots=True)
class TasksConfig(_Group):
    """How tasks are made, on every loop, and what is seen of them."""

    # factory(loop, coro, make, **kwargs) -> task; `make(loop, coro, **kwargs)` is the next factory: the one given to
    # loop.set_task_factory, or asyncio's
    factory: Callable[..., Any] | str | None = _key(None, FACTORY)  # noqa: RUF009
    # asyncio.eager_task_factory as the loop's own factory
    eager: bool = _key(False, EAGER)
    # how much is seen of each task: nothing, how many, when and where and for how long, every step
    level: Literal["off", "count", "time", "trace"] = _key("time", choice("off", "count", "time", "trace"))
    # a callback, or a turn of the loop, that lasts longer is a stall; seen from level time on
    stall_s: float | None = _key(0.1, optional(seconds(zero=False), "no watchdog"))
    # how often the loop looks for lost, stuck, hung and growing tasks
    check_s: float | None = _key(5.0, optional(seconds(zero=False), "never"))
    # a task that has waited longer is examined: can anybody complete what it waits for?
    stuck_s: float = _key(10.0, seconds(zero=True))
    # a task older than hung_s, and than so many times its site's 99th percentile, is hung
    hung_factor: float = _key(10.0, factor(1.0))
    hung_s: float = _key(60.0, seconds(zero=True))
    # how far back the flight recorder is read
    trace_s: float = _key(10.0, seconds(zero=False))
    # when the place is named where a task is made, frames of these packages are passed over as asyncio's are
    skip_modules: tuple[str, ...] = _key((), MODULES)
    # where each stall leaves a trace of the seconds before it: a folder
    trace_dir: str | None = _key(None, optional(FOLDER, "nowhere"))


@dataclass(frozen=True, slots=True)
class PressureConfig(_Group):
    """What is taken in at once."""

    # for `penstock serve`: connections the kernel holds unaccepted
    backlog: int = _key(2048, whole(1, "connections", highest=65535))
    # requests that `penstock serve` has an application work on at once, in each process; the rest wait a little or are
    # refused. auto: found by the service's own times
    limit: int | Literal["auto"] | None = _key(None, LIMIT)
    # what auto starts from. None: 10
    initial: int | None = _key(None, optional(whole(1, "requests", highest=1000), "10"))
    # how long a request may wait for its turn. None: half the deadline, and no more than 50 ms
    max_wait_s: float | None = _key(None, optional(seconds(zero=True), "half of deadline_s, at most 0.05"))
    # a request that cannot be answered within so long of its arrival is refused
    deadline_s: float | None = _key(None, optional(seconds(zero=False), "no deadline"))
    # of each server: beyond it, connections wait in the kernel's backlog
    max_connections: int | None = _key(None, optional(whole(1, "connections"), "any number"))
    # the native loop is behind when what is ready waits so long on average, for lag_for_s, and has caught up below
    # lag_low_s, by default half of it: until then it does not read what adds work, slows accepts and scales its gates
    lag_high_s: float | None = _key(None, optional(seconds(zero=False), "off"))
    lag_low_s: float | None = _key(None, optional(seconds(zero=False), "half of lag_high_s"))
    lag_for_s: float = _key(0.1, seconds(zero=True))
    # until then the oldest of what is not read goes first, and as much is kept as is read within that time; what comes
    # beyond is refused at once, where its protocol can. None: five times lag_high_s, at most half of deadline_s.
    # 0: newest first, nothing is refused
    hold_s: float | None = _key(None, optional(seconds(zero=True), "five times lag_high_s, at most half of deadline_s"))
    # paths that pressure.limit is not for, such as long polls; /events/* is all below it
    exempt_paths: tuple[str, ...] = _key((), PATHS)
    # of each gate: responses that go on and hold no permit any more; a stream beyond is refused. None: any number
    max_streams: int | None = _key(None, optional(whole(0, "streams"), "any number"))
    # an answer that goes on for so long after it began is a stream
    stream_after_s: float = _key(1.0, seconds(zero=True))
    # health checks: GET and HEAD requests for these paths are read first while the native loop is behind, and pass the
    # gate; a bounded number of them. Empty: none are
    health_paths: tuple[str, ...] = _key(("/healthz", "/livez", "/readyz"), PATHS)
    # a port of `penstock serve` on which a thread answers /livez and /readyz, whatever the loop does
    health_port: int | None = _key(None, optional(PORT, "no such port"))
    # where it listens. None: where the service does
    health_host: str | None = _key(None, optional(HOST, "as --host"))
    # /livez fails when one callback has kept the loop for so long
    health_stuck_s: float = _key(10.0, seconds(zero=False))
    # whether /readyz fails while the loop is overloaded
    health_overload_unready: bool = _key(False, BOOL)
    # a client that shuts its side down while its request is not read yet has given up: the connection is closed unread
    drop_left: bool = _key(True, BOOL)
    # so many tasks may live in a loop: beyond it a warning from time to time, also to those who wait for room by
    # spawn_when_free(), or Overloaded
    max_tasks: int | None = _key(None, optional(whole(1, "tasks"), "any number"))
    tasks_full: Literal["warn", "wait", "refuse"] = _key("warn", choice("warn", "wait", "refuse"))
    # the bytes that may wait in the buffers of all connections of the process: above, the heaviest are paused
    buffer_bytes: int | None = _key(None, optional(whole(1, "bytes"), "no bound"))
    # a peer that leaves more unread, and for slow_reader_s takes next to nothing of it, is disconnected
    slow_reader_bytes: int | None = _key(None, optional(whole(1, "bytes"), "each connection's own high watermark"))
    slow_reader_s: float | None = _key(None, optional(seconds(zero=False), "never"))
    # a client that for so long sends nothing after it was accepted, or goes on sending bit by bit, is disconnected
    receive_s: float | None = _key(None, optional(seconds(zero=False), "never"))
    # an accepted connection on which nothing comes or goes for so long is closed
    idle_s: float | None = _key(None, optional(seconds(zero=False), "never"))

    def __post_init__(self) -> None:
        _Group.__post_init__(self)
        if self.lag_high_s is not None and self.lag_low_s is not None and self.lag_low_s > self.lag_high_s:
            allowed = f"at most the {self.lag_high_s} of lag_high_s"
            raise ConfigError.bad_value("pressure.lag_low_s", self.lag_low_s, "PressureConfig()", allowed)
        if self.slow_reader_bytes is not None and self.slow_reader_s is None:
            key = "pressure.slow_reader_bytes"
            allowed = "only with pressure.slow_reader_s, the seconds after which such a peer is disconnected"
            raise ConfigError.bad_value(key, self.slow_reader_bytes, "PressureConfig()", allowed)


@dataclass(frozen=True, slots=True)
class SignalsConfig(_Group):
    """What a signal does while a loop runs in the main thread. Handlers the program installs itself go first."""

    # SIGTERM and SIGINT: stop accepting, let work in flight end within drain_s, cancel the rest. None: both signals do
    # what they do on asyncio's own loop
    drain_s: float | None = _key(None, optional(seconds(zero=True), "no drain"))
    # SIGUSR1 writes every task's stack to stderr. None: only under `penstock run` and `penstock serve`
    dump: bool | None = _key(None, optional(BOOL, "only under penstock run and serve"))
    # "SIGHUP" -> handler(loop, signum), run in the loop; a coroutine it returns becomes a task
    handlers: Mapping[str | int, Callable[..., Any] | str] = field(
        default_factory=dict, hash=False, metadata={"kind": HANDLERS}
    )


@dataclass(frozen=True, slots=True)
class ServeConfig(_Group):
    """How `penstock serve` starts and stops an application."""

    # the application's lifespan startup; one that takes longer ends the process with exit code 3
    startup_s: float | None = _key(None, optional(seconds(zero=False), "no bound"))
    # the application's lifespan shutdown, which has what is left of signals.drain_s, at least half a second
    shutdown_s: float | None = _key(None, optional(seconds(zero=False), "what is left of the drain"))


@dataclass(frozen=True, slots=True)
class Config:
    """Everything penstock can be told, in six groups. `Config()` is all defaults."""

    loop: LoopConfig = field(default_factory=LoopConfig)
    executors: ExecutorsConfig = field(default_factory=ExecutorsConfig)
    tasks: TasksConfig = field(default_factory=TasksConfig)
    pressure: PressureConfig = field(default_factory=PressureConfig)
    signals: SignalsConfig = field(default_factory=SignalsConfig)
    serve: ServeConfig = field(default_factory=ServeConfig)

    def __post_init__(self) -> None:
        for item in fields(self):
            kind, value = item.default_factory, getattr(self, item.name)
            if isinstance(kind, type) and not isinstance(value, kind):
                raise ConfigError.bad_value(item.name, value, "Config()", f"a {kind.__name__}")

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        env: Mapping[str, str] | None = None,
        overrides: Mapping[str, object] | None = None,
    ) -> Config:
        """The config from, first to last: `overrides` (dotted keys), `PENSTOCK_*` variables, a file, the defaults.

        The file is `path`, else the one `PENSTOCK_CONFIG` names, else none. `env` is `os.environ` unless given.
        Raises ConfigError.
        """
        from penstock.config import sources

        return sources.load(path, os.environ if env is None else env, overrides or {})

    @staticmethod
    def find(start: str | os.PathLike[str]) -> Path | None:
        """The nearest `penstock.toml`, or `pyproject.toml` with a `[tool.penstock]`, from `start` upwards."""
        from penstock.config import sources

        return sources.find(Path(start))

    def to_env(self) -> dict[str, str]:
        """The `PENSTOCK_*` variables that make `Config.load()` give this config again in a child process.

        Raises ConfigError for a value that has no text: a callable or an executor object.
        """
        from penstock.config import sources

        return sources.to_env(self)
