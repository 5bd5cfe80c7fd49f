"""Builds a loop from a config: poller, executors, task factory, telemetry, overload protection, signals."""

from __future__ import annotations

import asyncio
import logging
from functools import cache
from typing import TYPE_CHECKING, Any

from penstock.config.references import resolve_callable
from penstock.executors.lanes import LaneSet
from penstock.loop import IN_SUBINTERPRETER, EventLoop, loop_class
from penstock.loop.native import native_core
from penstock.runtime.attach.service import attach_service
from penstock.runtime.observation import watch_tasks
from penstock.runtime.overload import gate_loop
from penstock.runtime.signals import LoopSignals
from penstock.tasks.observers.registry import observer_of

if TYPE_CHECKING:
    from penstock.config import Config, MonitorConfig, PressureConfig, TasksConfig

__all__ = ["build_loop"]

MEMORY_KEYS = "buffer_bytes", "slow_reader_bytes", "slow_reader_s", "receive_s", "idle_s"


def build_loop(config: Config) -> EventLoop:
    """Return a new loop, without making it the current one. Raises ConfigError for a reference that is not found."""
    loop = loop_class(config.loop.poller)(config.loop)
    if IN_SUBINTERPRETER and config.loop.poller == "auto":
        _report_subinterpreter()
    try:
        _set_tasks(loop, config.tasks)
        recorder = watch_tasks(loop, config.tasks)
        _attach(loop, config.monitor)
        loop.set_lanes(LaneSet(config.executors, recorder))
        gate_loop(loop, config.pressure, recorder)
        _set_memory(loop, config.pressure)
        signals = LoopSignals(loop, config.signals)
        if signals:
            loop.set_run_scope(lambda: signals)
    except BaseException:
        loop.close()
        raise
    return loop


@cache
def _report_subinterpreter() -> None:
    logging.getLogger("penstock").warning(
        "a subinterpreter runs asyncio's selector loop: penstock's native loop loads in the main interpreter only"
    )


def _attach(loop: EventLoop, config: MonitorConfig) -> None:
    if IN_SUBINTERPRETER:
        # the socket is the process's, and its main interpreter has it
        return
    core = native_core(loop)
    observer = observer_of(loop)
    name = "" if observer is None else observer.name or ""
    attach_service.add(loop, config, None if core is None else core.probe.heartbeat, name)


def _set_tasks(loop: EventLoop, config: TasksConfig) -> None:
    if config.name_cancellers:
        _name_cancellers(loop, config)
    elif config.eager:
        loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
    if config.factory is not None:
        loop.set_task_hook(resolve_callable(config.factory, "tasks.factory"))


def _name_cancellers(loop: EventLoop, config: TasksConfig) -> None:
    from penstock.tasks.cancellations import cancellations
    from penstock.tasks.recording_task import RecordingTask, make_task

    cancellations.is_enabled = True
    if config.eager:
        loop.set_task_factory(asyncio.create_eager_task_factory(RecordingTask))  # type: ignore[attr-defined,unused-ignore]
    else:
        loop.set_task_maker(make_task)


def _set_memory(loop: EventLoop, config: PressureConfig) -> None:
    bounds: dict[str, Any] = {key: getattr(config, key) for key in MEMORY_KEYS}
    if all(value is None for value in bounds.values()):
        return
    from penstock.pressure.overload.connections import bound_memory

    if not bound_memory(loop, **bounds):
        named = ", ".join(f"pressure.{key}" for key, value in bounds.items() if value is not None)
        logging.getLogger("penstock.pressure").warning("%s: no effect on asyncio's loop", named)
