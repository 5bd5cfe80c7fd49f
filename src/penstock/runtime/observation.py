"""Starts the task telemetry of a loop: by the probe on the native loop, by a task hook on asyncio's."""

from __future__ import annotations

import logging
import os
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

from penstock.errors import ConfigError
from penstock.loop.native import native_core, unknown_layout

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.config import TasksConfig
    from penstock.loop import EventLoop

__all__ = ["watch_tasks"]

logger = logging.getLogger("penstock.tasks")

# (kind, text, duration in nanoseconds)
Listener: TypeAlias = "Callable[[str, str, int], None]"


def watch_tasks(loop: EventLoop, config: TasksConfig) -> Listener | None:
    """Start task telemetry, also at level off: the level can change during the run.

    Return a function that writes further work into the flight recorder, or None without one.
    """
    if config.skip_modules:
        _skip(loop, config.skip_modules)
    if native_core(loop) is not None:
        return _by_probe(loop, config)
    if config.level != "off":
        # on asyncio's loop telemetry costs each task a callback, so it is not prepared for a later level
        _by_hook(loop, config)
    if config.trace_dir is not None:
        logger.warning("tasks.trace_dir has no effect on the selector loop: it has no flight recorder")
    return None


@cache
def _report_layout() -> None:
    """Log once that this Python's tasks or frames are laid out in a way that the core does not know."""
    if unknown := unknown_layout():
        logger.warning(
            "the native core does not know this Python's layout of %s: task telemetry asks attributes, and costs more",
            ", ".join(unknown),
        )


def _skip(loop: Any, packages: tuple[str, ...]) -> None:
    from penstock.tasks.observers.sites import is_skipped, skip_modules

    skip_modules(packages)
    core = native_core(loop)
    if core is not None:
        core.probe.sites.skips = is_skipped


def _by_probe(loop: Any, config: TasksConfig) -> Listener:
    from penstock.runtime.shed_events import ShedRecorder
    from penstock.tasks.detectors.watcher import Watcher
    from penstock.tasks.observers.native import NativeObserver

    if config.trace_dir is not None:
        _make_folder(config.trace_dir)
    if config.level != "off":
        _report_layout()
    observer = NativeObserver(loop, level=config.level, trace_s=config.trace_s)
    loop.set_task_watcher(Watcher(loop, observer, config))
    observer.on_level = ShedRecorder(observer).level_is
    observer.on_level(config.level)
    return observer.note_work


def _make_folder(path: str) -> None:
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        allowed = f"a folder that exists or can be created: {error.strerror}"
        raise ConfigError.bad_value("tasks.trace_dir", path, "the config", allowed) from None


def _by_hook(loop: EventLoop, config: TasksConfig) -> None:
    from penstock.tasks.detectors.watcher import SelectorWatcher
    from penstock.tasks.observers.factory import TaskFactory

    factory, former = TaskFactory(level=config.level), loop.get_task_hook()

    def hook(loop: Any, coro: Any, make: Any, **kwargs: Any) -> Any:
        """Call the program's hook, from the config, between the two factories."""

        def make_by_former(loop: Any, coro: Any, **kwargs: Any) -> Any:
            return former(loop, coro, make, **kwargs) if former is not None else make(loop, coro, **kwargs)

        return factory.hook(loop, coro, make_by_former, **kwargs)

    loop.set_task_hook(factory.hook if former is None else hook)
    loop.set_task_watcher(SelectorWatcher(loop, factory, config))
