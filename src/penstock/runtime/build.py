"""Builds a loop as a config says: poller, executors, task factory, debug, signals. The one place that does."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from penstock.errors import ConfigError
from penstock.executors.sizing import usable_cores
from penstock.loop import EventLoop, loop_class
from penstock.runtime.references import resolve, resolve_callable
from penstock.runtime.signals import LoopSignals

if TYPE_CHECKING:
    from penstock.config import Config, ExecutorsConfig, TasksConfig

__all__ = ["build_loop"]


def build_loop(config: Config) -> EventLoop:
    """A new loop, not yet anyone's current one. Raises ConfigError for a reference that names nothing."""
    loop = loop_class(config.loop.poller)(config.loop)
    try:
        _set_executors(loop, config.executors)
        _set_tasks(loop, config.tasks)
        signals = LoopSignals(loop, config.signals)
        loop.set_run_scope(lambda: signals)
    except BaseException:
        loop.close()
        raise
    return loop


def _set_executors(loop: EventLoop, config: ExecutorsConfig) -> None:
    workers = config.io.workers or min(32, usable_cores().chosen + 4)
    default: Any = partial(ThreadPoolExecutor, workers, thread_name_prefix="penstock")
    if config.default != "io":
        default = _given_executor(resolve(config.default, "executors.default"), config)
    dns = partial(ThreadPoolExecutor, config.dns.workers, thread_name_prefix="penstock-dns")
    loop.set_executor_factories(default, dns)


def _given_executor(found: Any, config: ExecutorsConfig) -> Any:
    """A function that hands the loop the executor found, or makes one with the function found."""
    if isinstance(found, Executor):
        return lambda: found
    if not callable(found):
        raise _not_an_executor(config, found)

    def make() -> Executor:
        made = found()
        if not isinstance(made, Executor):
            raise _not_an_executor(config, made)
        return made

    return make


def _not_an_executor(config: ExecutorsConfig, found: object) -> ConfigError:
    source = f"it gives a {type(found).__name__}"
    allowed = "the name of a concurrent.futures.Executor or of a function that makes one"
    return ConfigError.bad_value("executors.default", config.default, source, allowed)


def _set_tasks(loop: EventLoop, config: TasksConfig) -> None:
    if config.eager:
        loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
    if config.factory is not None:
        loop.set_task_hook(resolve_callable(config.factory, "tasks.factory"))
