"""The runner: asyncio's, on a loop built by a config. And the two functions that need no object at all."""

from __future__ import annotations

import asyncio
import inspect
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from penstock.config.choice import config_or_default
from penstock.runtime.build import build_loop

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from contextvars import Context

    from penstock.config import Config
    from penstock.loop import EventLoop

__all__ = ["Runner", "new_event_loop", "run"]

T = TypeVar("T")


class Runner:
    """asyncio.Runner on penstock's loop: a context manager with `run`, `get_loop` and `close`.

    Without a config it is what `penstock run` was told, else `Config.load()`. `debug`, when given, goes before the
    config's. Raises ConfigError.
    asyncio's runner is final: this one has it, and is none.
    """

    def __init__(self, config: Config | None = None, *, debug: bool | None = None) -> None:
        self.config = config_or_default(config, "Runner()")
        self._runner = asyncio.Runner(debug=debug, loop_factory=partial(build_loop, self.config))

    def __enter__(self) -> Self:
        self._runner.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def run(self, coro: Coroutine[Any, Any, T], *, context: Context | None = None) -> T:
        """Run `coro` in the loop to its end and return its result. As often as wanted, until `close`."""
        return self._runner.run(coro, context=context)

    def get_loop(self) -> EventLoop:
        """The loop, made at the first call."""
        return cast("EventLoop", self._runner.get_loop())

    def close(self) -> None:
        """Cancel what still runs, end async generators and executors, close the loop."""
        self._runner.close()


def run(main: Coroutine[Any, Any, T], *, config: Config | None = None, debug: bool | None = None) -> T:
    """As asyncio.run, on penstock's loop.

    Where the config chooses a drain (`signals.drain_s`), a run that SIGTERM ended raises SystemExit(143).
    """
    if asyncio._get_running_loop() is not None:
        main.close()
        raise RuntimeError("penstock.run() cannot be called from a running event loop")
    try:
        with Runner(config, debug=debug) as runner:
            return runner.run(main)
    except BaseException:
        # It never started, for a bad config or Ctrl-C before the loop was there: without this, "was never awaited"
        # would stand beside the one clear error.
        if inspect.iscoroutine(main) and inspect.getcoroutinestate(main) == inspect.CORO_CREATED:
            main.close()
        raise


def new_event_loop(config: Config | None = None) -> EventLoop:
    """A new loop, for any `loop_factory`. Without a config it is what `penstock run` was told, else `Config.load()`."""
    return build_loop(config_or_default(config, "new_event_loop()"))
