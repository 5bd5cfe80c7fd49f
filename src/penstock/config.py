"""The config: what is to be built, declared once, frozen and typed. No behaviour.

Five groups, each a frozen dataclass whose fields are the keys; the field's comment is its documentation. A value that
cannot be used raises `ConfigError` wherever it came from. Reading files and variables is `configfile.py`'s part.
"""

from __future__ import annotations

import concurrent.futures  # noqa: TC003 (get_type_hints works on a config)
import os
from collections.abc import Callable, Mapping  # noqa: TC003
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from penstock.configkinds import BOOL, EAGER, EXECUTOR, FACTORY, HANDLERS, Kind, choice, optional, seconds, whole
from penstock.errors import ConfigError

__all__ = ["Config", "ExecutorsConfig", "LoopConfig", "PressureConfig", "SignalsConfig", "TasksConfig"]


def _key(default: Any, kind: Kind) -> Any:
    return field(default=default, metadata={"kind": kind})


class _Group:
    """Checks every field against its kind; a group made in Python is as safe as one read from a file."""

    __slots__ = ()

    def __post_init__(self) -> None:
        group = type(self).__name__.removesuffix("Config").lower()
        for item in fields(self):  # type: ignore[arg-type]
            kind, value = item.metadata["kind"], getattr(self, item.name)
            try:
                object.__setattr__(self, item.name, kind.accept(value))
            except (ValueError, TypeError):
                source = f"{type(self).__name__}()"
                raise ConfigError.bad_value(f"{group}.{item.name}", value, source, kind.allowed) from None


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
    # None: as asyncio decides (PYTHONASYNCIODEBUG, -X dev)
    debug: bool | None = _key(None, optional(BOOL, "as asyncio decides"))
    # in debug mode, a callback that takes longer is logged
    slow_callback_s: float = _key(0.1, seconds(zero=True))


@dataclass(frozen=True, slots=True)
class ExecutorsConfig(_Group):
    """Where `run_in_executor(None, ...)` and name look-ups run."""

    # each loop shuts the executor it used when it closes: an object serves one loop, a function makes one for each
    default: str | concurrent.futures.Executor = _key("threads", EXECUTOR)  # noqa: RUF009
    # None: sized to the cores this process may really use (affinity, cgroup quota)
    threads: int | None = _key(None, optional(whole(1, "threads", highest=10_000), "sized to the machine"))
    # getaddrinfo and getnameinfo have threads of their own: blocking work never delays a connect
    dns_threads: int = _key(4, whole(1, "threads", highest=10_000))


@dataclass(frozen=True, slots=True)
class TasksConfig(_Group):
    """How tasks are made, on every loop."""

    # factory(loop, coro, make, **kwargs) -> task; `make(loop, coro, **kwargs)` is the next factory: the one given to
    # loop.set_task_factory, or asyncio's
    factory: Callable[..., Any] | str | None = _key(None, FACTORY)  # noqa: RUF009
    # asyncio.eager_task_factory as the loop's own factory
    eager: bool = _key(False, EAGER)


@dataclass(frozen=True, slots=True)
class PressureConfig(_Group):
    """What is taken in at once."""

    backlog: int = _key(2048, whole(1, "connections", highest=65535))


@dataclass(frozen=True, slots=True)
class SignalsConfig(_Group):
    """What a signal does while a loop runs in the main thread. Handlers the program installs itself go first."""

    # SIGTERM and SIGINT: stop accepting, let work in flight end within drain_s, cancel the rest
    drain: bool = _key(True, BOOL)
    drain_s: float = _key(10.0, seconds(zero=True))
    # SIGUSR1 writes every task's stack to stderr
    dump: bool = _key(True, BOOL)
    # "SIGHUP" -> handler(loop, signum), run in the loop; a coroutine it returns becomes a task
    handlers: Mapping[str | int, Callable[..., Any] | str] = field(
        default_factory=dict, hash=False, metadata={"kind": HANDLERS}
    )


@dataclass(frozen=True, slots=True)
class Config:
    """Everything penstock can be told, in five groups. `Config()` is all defaults."""

    loop: LoopConfig = field(default_factory=LoopConfig)
    executors: ExecutorsConfig = field(default_factory=ExecutorsConfig)
    tasks: TasksConfig = field(default_factory=TasksConfig)
    pressure: PressureConfig = field(default_factory=PressureConfig)
    signals: SignalsConfig = field(default_factory=SignalsConfig)

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
        from penstock import configfile

        return configfile.load(path, os.environ if env is None else env, overrides or {})

    @staticmethod
    def find(start: str | os.PathLike[str]) -> Path | None:
        """The nearest `penstock.toml`, or `pyproject.toml` with a `[tool.penstock]`, from `start` upwards."""
        from penstock import configfile

        return configfile.find(Path(start))

    def to_env(self) -> dict[str, str]:
        """The `PENSTOCK_*` variables that make `Config.load()` give this config again in a child process.

        Raises ConfigError for a value that has no text: a callable or an executor object.
        """
        from penstock import configfile

        return configfile.to_env(self)
