"""Lanes for a foreign loop: stock asyncio's or uvloop's.

A set of lanes is made at first use, by `default_config()`, and shut with the loop's async generators, which
`asyncio.run` closes at its end. A set of a loop that was closed without that is shut when the next set is made, or at
the interpreter's exit.
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

# the lanes of foreign loops
foreign_lanes: WeakKeyDictionary[asyncio.AbstractEventLoop, ForeignLoopLanes] = WeakKeyDictionary()
# a child made by fork has neither these loops nor their workers
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=foreign_lanes.clear)
# loops of several threads may be registered at once
_foreign_lanes_lock = threading.Lock()


def present_lanes(loop: asyncio.AbstractEventLoop) -> LaneSet | None:
    """Return the running loop's lanes; None if it has none yet."""
    return getattr(loop, "lanes", None) or foreign_lanes.get(loop)


def lanes_of(loop: asyncio.AbstractEventLoop) -> LaneSet:
    """Return the running loop's lanes, made now if it has none. Raises ConfigError."""
    # of penstock's loop first, without a call: this is asked for each offloaded call
    return getattr(loop, "_lanes", None) or present_lanes(loop) or _make_lanes(loop)


def _make_lanes(loop: asyncio.AbstractEventLoop) -> ForeignLoopLanes:
    from penstock.config.choice import default_config

    made = ForeignLoopLanes(default_config().executors)
    with _foreign_lanes_lock:
        # lanes of loops that were closed without their async generators: nothing else would shut them
        left = [foreign_lanes.pop(other) for other in list(foreign_lanes) if other.is_closed()]
        foreign_lanes[loop] = made
    for lanes in left:
        lanes.shutdown(wait=False)
    made.shut_with(loop)
    made.start(loop)
    return made


class ForeignLoopLanes(LaneSet):
    """The lanes of a foreign loop. Ownership: the loop's shutdown of its async generators shuts them."""

    _generator: AsyncGenerator[None, None] | None = None

    def shut_with(self, loop: asyncio.AbstractEventLoop) -> None:
        """Shut the lanes when the running loop shuts down its async generators."""
        self._generator = self._until_closed(loop)
        # the first step registers the generator with the loop, and does not suspend
        with contextlib.suppress(StopIteration):
            self._generator.__anext__().send(None)

    async def _until_closed(self, loop: asyncio.AbstractEventLoop) -> AsyncGenerator[None, None]:
        pid = os.getpid()
        try:
            yield
        finally:
            with _foreign_lanes_lock:
                foreign_lanes.pop(loop, None)
            # a forked child that ends its copy of the loop must not end the workers of its parent
            if os.getpid() == pid:
                await _in_a_thread(loop, self.shutdown)


async def _in_a_thread(loop: asyncio.AbstractEventLoop, act: Callable[[], object]) -> None:
    """Run `act` in a thread while the loop runs: `act` may wait for the loop, whose executors may be shut already."""
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
