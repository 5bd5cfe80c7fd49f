"""The pure loop: asyncio's own selector loop with penstock's executors and hooks. It runs wherever asyncio does."""

from __future__ import annotations

import asyncio

from penstock.config import LoopConfig
from penstock.loop.hooks import LoopHooks
from penstock.loop.lanes import ExecutorLanes

__all__ = ["EventLoop"]


class EventLoop(ExecutorLanes, LoopHooks, asyncio.SelectorEventLoop):
    """asyncio's selector loop built by a LoopConfig, of which `debug` and `slow_callback_s` apply here."""

    def __init__(self, config: LoopConfig | None = None) -> None:
        super().__init__()
        chosen = LoopConfig() if config is None else config
        self.slow_callback_duration = chosen.slow_callback_s
        if chosen.debug is not None:
            self.set_debug(chosen.debug)
