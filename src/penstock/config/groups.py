"""Groups of config keys: the loop, its tasks, its signals, and `penstock serve`. No behaviour.

Each group is a frozen dataclass; its fields are the keys, a field's comment is its documentation. Executors and
backpressure have modules of their own. An invalid value raises `ConfigError`, in Python as in a file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping  # noqa: TC003 (get_type_hints works on a config)
from dataclasses import dataclass, field
from typing import Any, Literal

from penstock.config.base import Group, key
from penstock.config.converters import (
    BOOL,
    EAGER,
    FACTORY,
    FOLDER,
    HANDLERS,
    KINDS,
    MODULES,
    choice,
    factor,
    optional,
    seconds,
    whole,
)

__all__ = ["SERVICE_DRAIN_S", "LoopConfig", "ServeConfig", "SignalsConfig", "TasksConfig"]

# the default of signals.drain_s under `penstock serve`
SERVICE_DRAIN_S = 10.0


@dataclass(frozen=True, slots=True)
class LoopConfig(Group):
    """The event loop. The selector loop uses only `debug` and `slow_callback_s`."""

    # epoll is penstock's native reactor, selector is asyncio's loop; auto is epoll where available
    poller: Literal["auto", "epoll", "selector"] = key("auto", choice("auto", "epoll", "selector"))
    # while callbacks are ready, poll at least every so many turns, or microseconds
    poll_every_turns: int = key(64, whole(1, "turns", highest=1_000_000))
    poll_every_us: int = key(100, whole(0, "microseconds", highest=60_000_000))
    # poll without blocking for so long first: lower latency for more CPU time
    spin_us: int = key(0, whole(0, "microseconds", highest=1_000_000))
    # the first of several timers that are due within so long may be late by as much, so that they end one wait
    timer_slack_us: int = key(500, whole(0, "microseconds", highest=1_000_000))
    # read at most so much from one connection in one turn, for fairness
    read_budget_bytes: int = key(262144, whole(1, "bytes", highest=1_073_741_824))
    # accept at most so many connections from one listener in one turn
    accept_batch: int = key(128, whole(1, "connections", highest=65535))
    # malloc keeps freed blocks of up to 1 MiB, in the whole process: large reads cost no page faults, but such memory
    # is not returned to the kernel
    warm_allocator: bool = key(False, BOOL)
    # None: as asyncio decides (PYTHONASYNCIODEBUG, -X dev)
    debug: bool | None = key(None, optional(BOOL, "as asyncio decides"))
    # in debug mode, a callback that takes longer is logged
    slow_callback_s: float = key(0.1, seconds(zero=True))


@dataclass(frozen=True, slots=True)
class TasksConfig(Group):
    """Creation and telemetry of tasks, on every loop."""

    # factory(loop, coro, make, **kwargs) -> task; `make(loop, coro, **kwargs)` is the next factory: the one given to
    # loop.set_task_factory, or asyncio's
    factory: Callable[..., Any] | str | None = key(None, FACTORY)  # noqa: RUF009
    # asyncio.eager_task_factory as the loop's own factory
    eager: bool = key(False, EAGER)
    # the detail of task telemetry: none, counts, sites and times, every step
    level: Literal["off", "count", "time", "trace"] = key("time", choice("off", "count", "time", "trace"))
    # a longer callback or turn is a stall; needs level time or trace
    stall_s: float | None = key(0.1, optional(seconds(zero=False), "no watchdog"))
    # beside a stall, an audit hook names the blocking call: open, connect, sleep, subprocess, DNS
    name_calls: bool = key(False, BOOL)
    # each cancellation of a task that the loop makes by itself is recorded, with the task that called `cancel()`
    name_cancellers: bool = key(False, BOOL)
    # the interval of the checks for lost, stuck, hung and growing tasks
    check_s: float | None = key(5.0, optional(seconds(zero=False), "never"))
    # a task that waits longer is checked for a wait that nothing can end
    stuck_s: float = key(10.0, seconds(zero=True))
    # a task is hung if older than hung_s and than so many times the 99th percentile of its site
    hung_factor: float = key(10.0, factor(1.0))
    hung_s: float = key(60.0, seconds(zero=True))
    # the time span that a dump of the flight recorder covers
    trace_s: float = key(10.0, seconds(zero=False))
    # frames of these packages, like asyncio's, are skipped in the search for a task's site
    skip_modules: tuple[str, ...] = key((), MODULES)
    # a folder: findings write a trace of the seconds before them there; native loop only
    trace_dir: str | None = key(None, optional(FOLDER, "nowhere"))
    # the kinds of those findings
    trace_on: tuple[str, ...] = key(("stall", "stuck", "await_cycle", "hung", "growing", "destroyed_pending"), KINDS)
    # the newest files that are kept in the folder, and the most bytes of each
    trace_files: int = key(20, whole(1, "files", highest=10_000))
    trace_bytes: int = key(5 * 1024 * 1024, whole(65536, "bytes", highest=1_073_741_824))
    # each loop writes at most one file in this time
    trace_every_s: float = key(10.0, seconds(zero=True))


@dataclass(frozen=True, slots=True)
class SignalsConfig(Group):
    """Signals during a run in the main thread. A handler that the program sets takes precedence."""

    # SIGTERM and SIGINT: stop accepting, let work in flight end within drain_s, cancel the rest. None: both signals act
    # as with asyncio's loop
    drain_s: float | None = key(None, optional(seconds(zero=True), "no drain"))
    # SIGUSR1 writes every task's stack to stderr. None: only under `penstock run` and `penstock serve`
    dump: bool | None = key(None, optional(BOOL, "only under penstock run and serve"))
    # "SIGHUP" -> handler(loop, signum), called in the loop; a returned coroutine becomes a task
    handlers: Mapping[str | int, Callable[..., Any] | str] = field(
        default_factory=dict, hash=False, metadata={"converter": HANDLERS}
    )


@dataclass(frozen=True, slots=True)
class ServeConfig(Group):
    """Start and stop of an application under `penstock serve`."""

    # bound of the lifespan startup; a longer one ends the process with exit code 3
    startup_s: float | None = key(None, optional(seconds(zero=False), "no bound"))
    # bound of the lifespan shutdown: the remaining signals.drain_s, but at least half a second
    shutdown_s: float | None = key(None, optional(seconds(zero=False), "what is left of the drain"))
    # from the first signal to the drain: not ready, but still accepting and answering
    drain_delay_s: float = key(0.0, seconds(zero=True))
