"""uvicorn's lifespan with bounds: a startup or a shutdown of the application that hangs ends the process in time."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from penstock.runtime.deadline import write_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["FAILED_START", "BoundedLifespan"]

logger = logging.getLogger("uvicorn.error")

# the exit code of a process that never began to serve, as uvicorn's
FAILED_START = 3
# time that cancelled code has for its clean-up
GRACE_S = 0.75


class BoundedLifespan:
    """A lifespan of uvicorn's with a bound for its startup and its shutdown; None for no bound.

    `started()` is called when the application has started. `left_s()` is what the end of the process leaves for the
    shutdown.
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

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lifespan, name)

    async def startup(self) -> None:
        """Start the application; `should_exit` is true afterwards if it did not in time."""
        try:
            with _exit_if_blocked(self._startup_s):
                async with asyncio.timeout(self._startup_s):
                    await self._lifespan.startup()
        except TimeoutError:
            logger.error("The application's startup took longer than serve.startup_s, %g s. Exiting.", self._startup_s)
            # uvicorn then takes the application's end for what it is
            self._lifespan.startup_failed = self._lifespan.should_exit = True
        if not self._lifespan.should_exit:
            self._started()

    async def shutdown(self) -> None:
        """Stop the application, within its own bound and what is left of the drain."""
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
    """End the process should it still be within this block at its bound: a blocked loop cannot tell the time."""
    if bound_s is None:
        yield
        return
    timer = threading.Timer(bound_s + GRACE_S, _end, (bound_s,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _end(bound_s: float) -> None:
    write_line(
        f"penstock: the application's startup blocks for longer than serve.startup_s, {bound_s:g} s: the process ends"
    )
    os._exit(FAILED_START)
