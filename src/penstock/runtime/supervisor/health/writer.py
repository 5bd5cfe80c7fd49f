"""Writes the state of a worker's loop into its health page: ten times a second, from a thread.

On the native loop the thread samples the loop's heartbeat without the GIL. Elsewhere it sends pings, callbacks, to the
loop, and needs the GIL: a worker whose GIL is held looks silent.
"""

from __future__ import annotations

import mmap
import threading
import time
from typing import TYPE_CHECKING, Any

from penstock.loop import NATIVE
from penstock.loop.native import HEARTBEAT_LEVEL, native_core
from penstock.runtime.supervisor.health.page import PAGE_BYTES

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from penstock.runtime.supervisor.health.page import HealthPage

__all__ = ["HealthWriter"]

PING_S = 0.1


class HealthWriter:
    """The writer of this process's health page. One for the process; `follow` gives it a loop.

    With the native core it also kills the process some time after `lifeline_fd` has hung up, which the caller owns and
    keeps open; -1: none. Ownership: it keeps its threads until `stop`, or the end of the process.
    """

    def __init__(self, page: HealthPage, lifeline_fd: int) -> None:
        self._page, self._lifeline_fd = page, lifeline_fd
        self._sent_ns = 0
        self._loop: Any = None
        # of a loop whose heartbeat is sampled
        self._probe: Any = None
        self._is_stopped = threading.Event()
        self._sampler = _make_sampler(page.memory, lifeline_fd)
        self._sampling: threading.Thread | None = None
        self._pinging: threading.Thread | None = None

    def start(self) -> None:
        """Write from now on, until `stop` or the end of the process."""
        if self._sampler is None:
            self._pinging = _started(self._ping_until_stopped, "penstock-health-pings")
        else:
            self._sampling = _started(self._sampler.run, "penstock-health-sampler")

    def stop(self) -> None:
        """End the threads. The page keeps its words."""
        self._is_stopped.set()
        self._stop_sampling()
        if self._pinging is not None:
            self._pinging.join()

    def follow(self, loop: asyncio.AbstractEventLoop) -> None:
        """Write the state of this loop from now on, after `start`."""
        self._loop = loop
        if self._pinging is not None:
            return
        core = native_core(loop)
        if core is not None and core.probe.level >= HEARTBEAT_LEVEL:
            self._probe = core.probe
            self._sampler.follow(core.probe.heartbeat)
        else:
            self._ping_instead()

    def check_level(self) -> None:
        """Change to pings if the loop has no heartbeat any more: its level may change. For the loop, now and then."""
        if self._probe is not None and self._probe.level < HEARTBEAT_LEVEL:
            self._probe = None
            self._ping_instead()

    def _ping_instead(self) -> None:
        """Leave the page to the pings: a sampler would show progress while the GIL is held, and hide a hang."""
        self._stop_sampling()
        # it watches the lifeline on, over memory that nothing reads
        self._sampler = _make_sampler(mmap.mmap(-1, PAGE_BYTES), self._lifeline_fd)
        self._sampling = _started(self._sampler.run, "penstock-health-sampler")
        self._pinging = _started(self._ping_until_stopped, "penstock-health-pings")

    def _stop_sampling(self) -> None:
        if self._sampling is not None:
            self._sampler.stop()
            self._sampling.join()

    def _ping_until_stopped(self) -> None:
        while not self._is_stopped.is_set():
            self._ping()
            self._is_stopped.wait(PING_S)

    def _ping(self) -> None:
        now_ns, loop = time.monotonic_ns(), self._loop
        if loop is not None and not self._sent_ns:
            self._sent_ns = now_ns
            try:
                loop.call_soon_threadsafe(self._receive)
            except RuntimeError:
                # the loop is closed
                self._sent_ns = 0
        self._page.note_turn(now_ns, self._sent_ns if now_ns != self._sent_ns else 0)

    def _receive(self) -> None:
        self._sent_ns = 0


def _started(run: Callable[[], object], name: str) -> threading.Thread:
    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread


def _make_sampler(memory: mmap.mmap, lifeline_fd: int) -> Any:
    """Return the native sampler; None without the native core."""
    if not NATIVE:
        return None
    from penstock._core.workers.health import HealthSampler

    return HealthSampler(memory, None, lifeline_fd)
