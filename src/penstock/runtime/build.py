"""Builds a loop as a config says: poller, executors, task factory, debug, signals. The one place that does."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from penstock.config.references import resolve_callable
from penstock.executors.lanes import LaneSet
from penstock.loop import EventLoop, loop_class
from penstock.runtime.observation import watch_tasks
from penstock.runtime.overload import gate_loop
from penstock.runtime.signals import LoopSignals

if TYPE_CHECKING:
    from penstock.config import Config, PressureConfig, TasksConfig

__all__ = ["build_loop"]

MEMORY_KEYS = "buffer_bytes", "slow_reader_bytes", "slow_reader_s", "receive_s", "idle_s"


def build_loop(config: Config) -> EventLoop:
    """A new loop, not yet anyone's current one. Raises ConfigError for a reference that names nothing."""
    loop = loop_class(config.loop.poller)(config.loop)
    try:
        _set_tasks(loop, config.tasks)
        told = watch_tasks(loop, config.tasks)
        loop.set_lanes(LaneSet(config.executors, told))
        gate_loop(loop, config.pressure, told)
        _set_memory(loop, config.pressure)
        signals = LoopSignals(loop, config.signals)
        if signals:
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


def _set_memory(loop: EventLoop, config: PressureConfig) -> None:
    bounds: dict[str, Any] = {key: getattr(config, key) for key in MEMORY_KEYS}
    if all(value is None for value in bounds.values()):
        return
    from penstock.pressure.overload.connections import bound_memory

    if not bound_memory(loop, **bounds):
        named = ", ".join(f"pressure.{key}" for key, value in bounds.items() if value is not None)
        logging.getLogger("penstock.pressure").warning("%s: without effect on asyncio's own loop", named)
