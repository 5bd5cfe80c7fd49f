"""The runner: asyncio.Runner with a loop built from a config; `run` and `new_event_loop`."""

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
    """asyncio.Runner with penstock's loop: a context manager with `run`, `get_loop` and `close`.

    Without a config it uses the one of `penstock run`, else `Config.load()`. `debug` overrides the config. Raises
    ConfigError. It wraps asyncio.Runner, which is final.
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
        """Run `coro` in the loop and return its result. It can be called repeatedly until `close`."""
        return self._runner.run(coro, context=context)

    def get_loop(self) -> EventLoop:
        """Return the loop; the first call creates it."""
        return cast("EventLoop", self._runner.get_loop())

    def close(self) -> None:
        """Cancel the remaining tasks, shut down async generators and executors, close the loop."""
        self._runner.close()


def run(main: Coroutine[Any, Any, T], *, config: Config | None = None, debug: bool | None = None) -> T:
    """Run `main` as asyncio.run does, on penstock's loop, and return its result.

    With a drain in the config (`signals.drain_s`), a run that SIGTERM ends raises SystemExit(143). Raises ConfigError,
    and RuntimeError in a running loop.
    """
    if asyncio._get_running_loop() is not None:
        main.close()
        raise RuntimeError("penstock.run() cannot be called from a running event loop")
    try:
        with Runner(config, debug=debug) as runner:
            return runner.run(main)
    except BaseException:
        # It never started, because of a bad config or a Ctrl-C before the loop existed. Without this, a warning "was
        # never awaited" would follow the error.
        if inspect.iscoroutine(main) and inspect.getcoroutinestate(main) == inspect.CORO_CREATED:
            main.close()
        raise


def new_event_loop(config: Config | None = None) -> EventLoop:
    """Return a new loop, for any `loop_factory`.

    Without a config it uses the one of `penstock run`, else `Config.load()`. Raises ConfigError.
    """
    return build_loop(config_or_default(config, "new_event_loop()"))
