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
    MODULES,
    choice,
    factor,
    optional,
    seconds,
    whole,
)

__all__ = ["LoopConfig", "ServeConfig", "SignalsConfig", "TasksConfig"]


@dataclass(frozen=True, slots=True)
class LoopConfig(Group):
    """How the loop turns. Only `debug` and `slow_callback_s` mean something to the selector loop."""

    # epoll is penstock's native reactor, selector asyncio's own loop; auto takes the best this machine has
    poller: Literal["auto", "epoll", "selector"] = key("auto", choice("auto", "epoll", "selector"))
    # while the ready queue is busy, ask the OS for events at least every so many turns, or microseconds
    poll_every_turns: int = key(64, whole(1, "turns", highest=1_000_000))
    poll_every_us: int = key(100, whole(0, "microseconds", highest=60_000_000))
    # poll busily this long before blocking: latency for CPU time
    spin_us: int = key(0, whole(0, "microseconds", highest=1_000_000))
    # read at most this much from a connection in one turn, so that a fast sender starves nobody
    read_budget_bytes: int = key(262144, whole(1, "bytes", highest=1_073_741_824))
    # accept at most this many connections from a listener in one turn
    accept_batch: int = key(128, whole(1, "connections", highest=65535))
    # have malloc keep freed blocks of up to 1 MiB, in the whole process: large reads cost no page faults, and memory
    # that was once used for such blocks, by anything, is not given back
    warm_allocator: bool = key(False, BOOL)
    # None: as asyncio decides (PYTHONASYNCIODEBUG, -X dev)
    debug: bool | None = key(None, optional(BOOL, "as asyncio decides"))
    # in debug mode, a callback that takes longer is logged
    slow_callback_s: float = key(0.1, seconds(zero=True))


@dataclass(frozen=True, slots=True)
class TasksConfig(Group):
    """How tasks are made, on every loop, and what is seen of them."""

    # factory(loop, coro, make, **kwargs) -> task; `make(loop, coro, **kwargs)` is the next factory: the one given to
    # loop.set_task_factory, or asyncio's
    factory: Callable[..., Any] | str | None = key(None, FACTORY)  # noqa: RUF009
    # asyncio.eager_task_factory as the loop's own factory
    eager: bool = key(False, EAGER)
    # how much is seen of each task: nothing, how many, when and where and for how long, every step
    level: Literal["off", "count", "time", "trace"] = key("time", choice("off", "count", "time", "trace"))
    # a callback, or a turn of the loop, that lasts longer is a stall; seen from level time on
    stall_s: float | None = key(0.1, optional(seconds(zero=False), "no watchdog"))
    # how often the loop looks for lost, stuck, hung and growing tasks
    check_s: float | None = key(5.0, optional(seconds(zero=False), "never"))
    # a task that has waited longer is examined: can anybody complete what it waits for?
    stuck_s: float = key(10.0, seconds(zero=True))
    # a task older than hung_s, and than so many times its site's 99th percentile, is hung
    hung_factor: float = key(10.0, factor(1.0))
    hung_s: float = key(60.0, seconds(zero=True))
    # how far back the flight recorder is read
    trace_s: float = key(10.0, seconds(zero=False))
    # when the place is named where a task is made, frames of these packages are passed over as asyncio's are
    skip_modules: tuple[str, ...] = key((), MODULES)
    # where each stall leaves a trace of the seconds before it: a folder
    trace_dir: str | None = key(None, optional(FOLDER, "nowhere"))


@dataclass(frozen=True, slots=True)
class SignalsConfig(Group):
    """What a signal does while a loop runs in the main thread. Handlers the program installs itself go first."""

    # SIGTERM and SIGINT: stop accepting, let work in flight end within drain_s, cancel the rest. None: both signals do
    # what they do on asyncio's own loop
    drain_s: float | None = key(None, optional(seconds(zero=True), "no drain"))
    # SIGUSR1 writes every task's stack to stderr. None: only under `penstock run` and `penstock serve`
    dump: bool | None = key(None, optional(BOOL, "only under penstock run and serve"))
    # "SIGHUP" -> handler(loop, signum), run in the loop; a coroutine it returns becomes a task
    handlers: Mapping[str | int, Callable[..., Any] | str] = field(
        default_factory=dict, hash=False, metadata={"kind": HANDLERS}
    )


@dataclass(frozen=True, slots=True)
class ServeConfig(Group):
    """How `penstock serve` starts and stops an application."""

    # the application's lifespan startup; one that takes longer ends the process with exit code 3
    startup_s: float | None = key(None, optional(seconds(zero=False), "no bound"))
    # the application's lifespan shutdown, which has what is left of signals.drain_s, at least half a second
    shutdown_s: float | None = key(None, optional(seconds(zero=False), "what is left of the drain"))
