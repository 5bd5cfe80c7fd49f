"""Lanes for a loop that is not penstock's: stock asyncio's, uvloop's.

One set is made at first use, by `default_config()`, and shut with the loop's async generators, which `asyncio.run`
closes at its end; a set that is left over is shut when the next one is made, or as the interpreter exits.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from penstock.executors.lanes import LaneSet

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

__all__ = ["lanes_of", "present_lanes"]

# loops that are not penstock's, with the lanes made for each
foreign_lanes: WeakKeyDictionary[asyncio.AbstractEventLoop, ForeignLoopLanes] = WeakKeyDictionary()
# a child made by fork has neither these loops nor their workers
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=foreign_lanes.clear)
# loops of several threads may be registered at once
_foreign_lanes_lock = threading.Lock()


def present_lanes(loop: asyncio.AbstractEventLoop) -> LaneSet | None:
    """The running loop's lanes; None if it has none so far."""
    return getattr(loop, "lanes", None) or foreign_lanes.get(loop)


def lanes_of(loop: asyncio.AbstractEventLoop) -> LaneSet:
    """The running loop's lanes; made now if it has none. Raises ConfigError."""
    return present_lanes(loop) or _make_lanes(loop)


def _make_lanes(loop: asyncio.AbstractEventLoop) -> ForeignLoopLanes:
    from penstock.config.choice import default_config

    made = ForeignLoopLanes(default_config().executors)
    with _foreign_lanes_lock:
        # the lanes of a loop that was closed without its generators: nobody else will shut them
        left = [foreign_lanes.pop(other) for other in list(foreign_lanes) if other.is_closed()]
        foreign_lanes[loop] = made
    for lanes in left:
        lanes.shutdown(wait=False)
    made.shut_with(loop)
    made.start(loop)
    return made


class ForeignLoopLanes(LaneSet):
    """The lanes of a loop that is not penstock's. Ownership: the loop's own shutdown of async generators shuts them."""

    _generator: AsyncGenerator[None, None] | None = None

    def shut_with(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have the running loop shut the lanes when it ends its async generators."""
        self._generator = self._until_closed(loop)
        # its first step, which registers it with the loop, waits for nothing
        with contextlib.suppress(StopIteration):
            self._generator.__anext__().send(None)

    async def _until_closed(self, loop: asyncio.AbstractEventLoop) -> AsyncGenerator[None, None]:
        pid = os.getpid()
        try:
            yield
        finally:
            with _foreign_lanes_lock:
                foreign_lanes.pop(loop, None)
            # a forked child that ends its copy of the loop has no say over its parent's workers
            if os.getpid() == pid:
                await _in_a_thread(loop, self.shutdown)


async def _in_a_thread(loop: asyncio.AbstractEventLoop, act: Callable[[], object]) -> None:
    """Run `act` beside the loop, which may have to turn for it to end; the loop's own executors may be shut by now."""
    done = asyncio.Event()

    def run() -> None:
        try:
            act()
        finally:
            loop.call_soon_threadsafe(done.set)

    thread = threading.Thread(target=run, name="penstock-shutdown")
    thread.start()
    await done.wait()
    thread.join()


@atexit.register
def _shut_foreign_lanes() -> None:
    for lanes in list(foreign_lanes.values()):
        lanes.shutdown(wait=False, cancel_futures=True)
