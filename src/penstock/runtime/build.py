"""Builds a loop as a config says: poller, executors, task factory, debug, signals. The one place that does."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from functools import partial
from typing import TYPE_CHECKING, Any

from penstock.errors import ConfigError
from penstock.executors.threads import default_threads, dns_threads
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
    default: Any = partial(default_threads, config)
    if config.default != "threads":
        default = _given_executor(resolve(config.default, "executors.default"), config)
    loop.set_executor_factories(default, partial(dns_threads, config))


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
