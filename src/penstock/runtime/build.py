"""Builds a loop as a config says: poller, executors, task factory, debug, signals. The one place that does."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from penstock.executors.lanes import LaneSet
from penstock.loop import EventLoop, loop_class
from penstock.references import resolve_callable
from penstock.runtime.gating import gate_loop
from penstock.runtime.signals import LoopSignals
from penstock.runtime.watching import watch_tasks

if TYPE_CHECKING:
    from penstock.config import Config, TasksConfig

__all__ = ["build_loop"]


def build_loop(config: Config) -> EventLoop:
    """A new loop, not yet anyone's current one. Raises ConfigError for a reference that names nothing."""
    loop = loop_class(config.loop.poller)(config.loop)
    try:
        _set_tasks(loop, config.tasks)
        told = watch_tasks(loop, config.tasks)
        loop.set_lanes(LaneSet(config.executors, told))
        gate_loop(loop, config.pressure, told)
        signals = LoopSignals(loop, config.signals)
        loop.set_run_scope(lambda: signals)
    except BaseException:
        loop.close()
        raise
    return loop


def _set_tasks(loop: EventLoop, config: TasksConfig) -> None:
    if config.eager:
        loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
    if config.factory is not None:
        loop.set_task_hook(resolve_callable(config.factory, "tasks.factory"))
