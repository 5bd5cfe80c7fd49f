"""uvicorn's lifespan with bounds: an application whose startup or shutdown hangs does not keep the process."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from penstock.runtime.deadline import GRACE_S, write_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["FAILED_START", "BoundedLifespan"]

logger = logging.getLogger("uvicorn.error")

# uvicorn's exit code of a process that never began to serve
FAILED_START = 3


class BoundedLifespan:
    """A lifespan of uvicorn's with bounds in seconds for its startup and its shutdown; None for no bound.

    `started()` is called after the application's startup. `left_s()` returns the time that the process has left for
    the shutdown.
    """

    def __init__(
        self,
        lifespan: Any,
        startup_s: float | None,
        shutdown_s: float | None,
        *,
        started: Callable[[], object],
        left_s: Callable[[], float | None],
    ) -> None:
        self._lifespan = lifespan
        self._startup_s = startup_s
        self._shutdown_s = shutdown_s
        self._started = started
        self._left_s = left_s
        self._bound: asyncio.Timeout | None = None
        self._drain_s: float | None = None
        self._is_bound_by_drain = False
        # whether the startup did not end within a drain
        self.is_drained = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lifespan, name)

    async def startup(self) -> None:
        """Start the application. `should_exit` is true afterwards if it did not start in time."""
        try:
            with _exit_if_blocked(self._startup_s):
                async with asyncio.timeout(self._startup_s) as self._bound:
                    await self._lifespan.startup()
        except TimeoutError:
            self._fail_startup()
        finally:
            self._bound = None
        if not self._lifespan.should_exit:
            self._started()

    def drain(self, drain_s: float) -> None:
        """Let the startup take `drain_s` seconds from now on. Called by a signal's handler in the loop's thread."""
        if self._bound is not None and self._drain_s is None:
            self._drain_s = drain_s
            loop = asyncio.get_running_loop()
            loop.call_soon_threadsafe(self._reschedule, loop.time() + drain_s)

    def _reschedule(self, until_s: float) -> None:
        bound = self._bound
        if bound is not None and not bound.expired() and until_s < (bound.when() or float("inf")):
            self._is_bound_by_drain = True
            bound.reschedule(until_s)

    def _fail_startup(self) -> None:
        self.is_drained = self._is_bound_by_drain
        if self.is_drained:
            logger.error("The application's startup took longer than the drain, %g s. Exiting.", self._drain_s)
        else:
            logger.error("The application's startup took longer than serve.startup_s, %g s. Exiting.", self._startup_s)
        # with these, uvicorn logs no error of the application's task and exits
        self._lifespan.startup_failed = self._lifespan.should_exit = True

    async def shutdown(self) -> None:
        """Stop the application, within its own bound and the rest of the drain."""
        bounds = [bound for bound in (self._shutdown_s, self._left_s()) if bound is not None]
        bound_s = min(bounds, default=None)
        try:
            async with asyncio.timeout(bound_s):
                await self._lifespan.shutdown()
        except TimeoutError:
            logger.error("The application's shutdown took longer than %.3g s and is cancelled.", bound_s)
            self._lifespan.shutdown_failed = True


@contextmanager
def _exit_if_blocked(bound_s: float | None) -> Iterator[None]:
    """End the process if it is still in the block some time after the bound: a blocked loop runs no timer."""
    if bound_s is None:
        yield
        return
    timer = threading.Timer(bound_s + GRACE_S, _exit, (bound_s,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _exit(bound_s: float) -> None:
    write_line(
        f"penstock: the application's startup blocks for longer than serve.startup_s, {bound_s:g} s: the process ends"
    )
    os._exit(FAILED_START)
