"""Task hooks: a hook around the making of each task, and a watcher of the loop's problems and its end."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

__all__ = ["TaskHook", "TaskHooks", "TaskWatcher"]

logger = logging.getLogger("penstock.loop")

# hook(loop, coro, make, **kwargs) -> task
TaskHook: TypeAlias = Callable[..., Any]


class TaskWatcher(Protocol):
    """A listener to the problems and the end of a loop."""

    def on_problem(self, context: dict[str, Any]) -> None:
        """Hear that the loop's exception handler is about to be called with this context."""

    def on_close(self) -> None:
        """Hear that the loop is about to be closed. Tasks may be left in it."""


class TaskHooks(asyncio.BaseEventLoop):
    """Mixin, before asyncio's loop in the bases, with one task hook and one task watcher. Neither is set at first."""

    _task_hook: TaskHook | None = None
    _user_factory: Any = None
    # makes the tasks where the program has set no factory; None: asyncio does. The native loop has a field for it
    _task_maker: Any
    _task_watcher: TaskWatcher | None = None

    def set_task_watcher(self, watcher: TaskWatcher | None) -> None:
        """Notify `watcher` of contexts for the exception handler and of the loop's end; None: nobody."""
        self._task_watcher = watcher

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Notify the watcher, then call the handler as asyncio's loop does."""
        if self._task_watcher is not None:
            self._notify_watcher(self._task_watcher.on_problem, context)
        super().call_exception_handler(context)

    def close(self) -> None:
        """Notify the watcher, then close as asyncio's loop does."""
        if self._task_watcher is not None and not self.is_running() and not self.is_closed():
            self._notify_watcher(self._task_watcher.on_close)
        super().close()

    def _notify_watcher(self, notify: Callable[..., None], *args: Any) -> None:
        # objects are freed at the interpreter's end too, when nothing can be imported any more
        if sys.is_finalizing():
            return
        try:
            notify(*args)
        except Exception:
            self._task_watcher = None
            logger.exception("the task watcher of %r raised, and is removed", self)

    def set_task_hook(self, hook: TaskHook | None) -> None:
        """Have `hook(loop, coro, make, **kwargs)` make every task; `make(loop, coro, **kwargs)` is the next factory."""
        self._task_hook = hook
        self.set_task_factory(self._user_factory)

    def set_task_maker(self, make: Callable[..., Any] | None) -> None:
        """Have `make(loop, coro, **kwargs)` make the tasks for which the program has set no factory; None: asyncio."""
        self._task_maker = make
        self.set_task_factory(self._user_factory)

    def get_task_hook(self) -> TaskHook | None:
        """Return the hook given to `set_task_hook`."""
        return self._task_hook

    def set_task_factory(self, factory: Any) -> None:
        """Set the factory as asyncio's loop does. A task hook stays in place and gets this factory as its `make`."""
        super().set_task_factory(factory)
        self._user_factory = factory
        if self._task_hook is not None:
            super().set_task_factory(_hooked(self._task_hook, factory or self._task_maker or _make_task))
        elif factory is None and self._task_maker is not None:
            super().set_task_factory(self._task_maker)

    def get_task_factory(self) -> Any:
        """Return the factory given to `set_task_factory`, without the hook around it."""
        is_own = self._task_hook is None and self._task_maker is None
        return super().get_task_factory() if is_own else self._user_factory


def _make_task(loop: asyncio.AbstractEventLoop, coro: Any, **kwargs: Any) -> asyncio.Task[Any]:
    return asyncio.Task(coro, loop=loop, **kwargs)


def _hooked(hook: TaskHook, make: Any) -> Any:
    # only the keywords that the caller passed: which ones there are differs between Python versions
    def factory(loop: asyncio.AbstractEventLoop, coro: Any, **kwargs: Any) -> Any:
        return hook(loop, coro, make, **kwargs)

    return factory
