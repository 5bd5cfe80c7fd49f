"""The pure loop: asyncio's own selector loop with penstock's executors and hooks. It runs wherever asyncio does."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from penstock.config import LoopConfig
from penstock.loop.calls.subprocesses import SubprocessCalls
from penstock.loop.hooks import LoopHooks

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

__all__ = ["SelectorEventLoop"]


class SelectorEventLoop(LoopHooks, SubprocessCalls, asyncio.SelectorEventLoop):
    """asyncio's selector loop built by a LoopConfig, of which `debug` and `slow_callback_s` apply here."""

    _task_maker: Any = None

    def __init__(self, config: LoopConfig | None = None) -> None:
        super().__init__()
        chosen = LoopConfig() if config is None else config
        self.slow_callback_duration = chosen.slow_callback_s
        if chosen.debug is not None:
            self.set_debug(chosen.debug)

    def _run_within(self, scope: AbstractContextManager[Any], run: Callable[[], None]) -> None:
        with scope:
            run()

    def create_task(self, coro: Any, **kwargs: Any) -> asyncio.Task[Any]:
        # Where a factory makes the task, Python 3.13.0 names one without a name "None". Our hook or maker is a factory.
        is_ours = self._task_hook is not None or self._task_maker is not None
        if kwargs.get("name") is not None or not is_ours or self.get_task_factory() is not None:
            return super().create_task(coro, **kwargs)
        self._check_closed()  # type: ignore[attr-defined]
        options = {key: value for key, value in kwargs.items() if value is not None}
        task: asyncio.Task[Any] = self._task_factory(self, coro, **options)  # type: ignore[attr-defined]
        return task
