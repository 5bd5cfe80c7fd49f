"""Has the tasks of a loop watched as its config says: by the probe in penstock's own, by a task hook in asyncio's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock.config import TasksConfig
    from penstock.loop import EventLoop

__all__ = ["watch_tasks"]


def watch_tasks(loop: EventLoop, config: TasksConfig) -> None:
    """Begin to watch. A loop of level off is watched too: the level can be set while it runs."""
    if hasattr(loop, "_probe"):
        _by_probe(loop, config)
    elif config.level != "off":
        # on asyncio's loop to be watched costs each task a callback: nothing is left to be turned on later
        _by_hook(loop, config)


def _by_probe(loop: Any, config: TasksConfig) -> None:
    from penstock.tasks.native import NativeObserver
    from penstock.tasks.watcher import Watcher

    observer = NativeObserver(loop, level=config.level, trace_s=config.trace_s)
    loop.set_task_watcher(Watcher(loop, observer, config))


def _by_hook(loop: EventLoop, config: TasksConfig) -> None:
    from penstock.tasks.factory import TaskFactory

    factory, former = TaskFactory(level=config.level), loop.get_task_hook()

    def hook(loop: Any, coro: Any, make: Any, **kwargs: Any) -> Any:
        """The program's own hook, from the config, stands between."""

        def make_by_former(loop: Any, coro: Any, **kwargs: Any) -> Any:
            return former(loop, coro, make, **kwargs) if former is not None else make(loop, coro, **kwargs)

        return factory.hook(loop, coro, make_by_former, **kwargs)

    loop.set_task_hook(factory.hook if former is None else hook)
