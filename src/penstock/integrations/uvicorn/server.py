"""uvicorn's server with penstock's start and end: it listens after the application's startup, and loses no client.

In a worker process it drains when the supervisor says so.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

import uvicorn

from penstock.config.choice import default_config
from penstock.integrations.uvicorn.drain import close_after_responses, close_connections
from penstock.integrations.uvicorn.lifespan import FAILED_START, BoundedLifespan
from penstock.pressure.overload.loop import pause_watch, resume_watch
from penstock.runtime.acceptqueue import empty, stop_new
from penstock.runtime.deadline import TOGETHER_S
from penstock.tasks.detectors.stalls import stall_watch

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

    from penstock.runtime.supervisor.notify import Notifier
    from penstock.runtime.supervisor.worker.link import WorkerLink

__all__ = ["UvicornServer"]

logger = logging.getLogger("uvicorn.error")

# the least time of the application's shutdown, even if requests have taken all of the drain
MIN_SHUTDOWN_S = 0.5
# how often a draining worker notes its work for its supervisor
NOTE_INTERVAL_S = 0.1


class UvicornServer(uvicorn.Server):
    """uvicorn's server. `owned` are the listeners that no other server goes on with."""

    owned: Sequence[socket.socket] = ()
    _until_s: float | None = None
    _is_stop_notified = False
    _signalled_s: float | None = None
    _is_delay_logged = False
    _lifespan: BoundedLifespan | None = None

    @property
    def _link(self) -> WorkerLink | None:
        """The worker's link to its supervisor; None in a process that has none."""
        return getattr(self.config, "link", None)

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Load the application and serve it until a signal ends it."""
        # imports and the lifespan's startup block the loop while no client waits; `startup` resumes the watch
        loop = asyncio.get_running_loop()
        pause_watch(loop)
        stall_watch.exempt_turn(loop)
        await super().serve(sockets=sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, then listen. SystemExit(3) if either fails; a drain may end it too."""
        if self._link is not None:
            loop = asyncio.get_running_loop()
            self._link.serve_drains(lambda *drain: loop.call_soon_threadsafe(self._begin_drain, *drain))
        bounds = default_config().serve
        lifespan: Any = BoundedLifespan(
            self.lifespan,
            bounds.startup_s,
            bounds.shutdown_s,
            started=lambda: _allow_listening(sockets or ()),
            left_s=self._left_s,
        )
        self.lifespan = self._lifespan = lifespan
        try:
            await super().startup(sockets=sockets)
        except OSError as error:
            logger.error("cannot listen: %s", error)
            await lifespan.shutdown()
        except SystemExit:
            # newer uvicorns exit with the code of a failed startup
            if not lifespan.is_drained:
                raise
        if lifespan.is_drained:
            # uvicorn ends by the signal that it has captured
            return
        if not self.started:
            sys.exit(FAILED_START)
        resume_watch(asyncio.get_running_loop())
        if self._link is not None:
            self._link.started()
        notifier = self._notifier
        if notifier is not None:
            notifier.ready(f"serves by process {os.getpid()}")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Note a signal. The application's startup has the drain's time from then on; a drain may be delayed."""
        if self._link is not None:
            # the supervisor decides: it may have received the signal as well
            self._link.report_signal(sig)
            return
        self._notify_stop()
        if self._delay_drain(sig):
            return
        super().handle_exit(sig, frame)
        self._bound_startup()

    def _bound_startup(self) -> None:
        drain_s, lifespan = self.config.timeout_graceful_shutdown, self._lifespan
        if drain_s is not None and lifespan is not None and not self.started:
            lifespan.drain(drain_s)

    def _delay_drain(self, signum: int) -> bool:
        """Delay the drain at the first signal to a server that has started. Return False if the drain begins now."""
        if not self.started or self.should_exit or self._drain_delay_s <= 0:
            return False
        now_s = time.monotonic()
        if self._signalled_s is None:
            self._signalled_s = now_s
        elif now_s - self._signalled_s > TOGETHER_S:
            return False
        self._captured_signals.append(signum)
        return True

    @property
    def _drain_delay_s(self) -> float:
        return float(getattr(self.config, "drain_delay_s", 0.0))

    @property
    def is_delaying(self) -> bool:
        """Whether a signal has come and the drain begins later, or has begun after its delay."""
        return self._signalled_s is not None

    async def on_tick(self, counter: int) -> bool:
        """Do uvicorn's regular work. Return True when the server is to drain."""
        if self._signalled_s is not None and not self.should_exit:
            if not self._is_delay_logged:
                self._is_delay_logged = True
                logger.info("Not ready any more; the drain begins in %g s", self._drain_delay_s)
            self.should_exit = time.monotonic() >= self._signalled_s + self._drain_delay_s
        self._note_work()
        return await super().on_tick(counter)

    def _begin_drain(self, drain_s: float | None, is_orphan: bool) -> None:
        """Begin the drain that the supervisor asks for, or an orphan's."""
        # uvicorn's annotation has whole seconds
        self.config.timeout_graceful_shutdown = drain_s  # type: ignore[assignment]
        if is_orphan and self._link is not None and not self._link.leaves_listeners:
            self.owned = [sock for sock in self._link.owned if sock.family != socket.AF_UNIX]
            for file in getattr(self.config, "socket_files", ()):
                file.remove()
        self.should_exit = True
        self._bound_startup()

    def _note_work(self) -> None:
        if self._link is None:
            return
        state = self.server_state
        self._link.health.check_level()
        self._link.page.note_work(len(state.tasks), state.total_requests, len(state.connections))
        if self.should_exit:
            asyncio.get_running_loop().call_later(NOTE_INTERVAL_S, self._note_work)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept the clients in the kernel's queue, answer all requests, then stop the application."""
        logger.info("Shutting down")
        self._notify_stop()
        loop, drain_s = asyncio.get_running_loop(), self.config.timeout_graceful_shutdown
        until_s = float("inf") if drain_s is None else loop.time() + drain_s
        self._until_s = None if drain_s is None else until_s
        close_after_responses(self)
        # concurrently: with bounded connections, clients are accepted as idle connections are closed
        await asyncio.gather(self._stop_accepting(sockets or [], until_s), close_connections(self, until_s))
        await close_connections(self, until_s)
        await self._end_tasks(until_s)
        if not self.force_exit:
            await self.lifespan.shutdown()

    async def _stop_accepting(self, sockets: list[socket.socket], until_s: float) -> None:
        for sock in self.owned:
            stop_new(sock)
        await empty(asyncio.get_running_loop(), sockets, until_s)
        for server in self.servers:
            server.close()
        for sock in sockets:
            sock.close()
        if self._link is not None:
            self._link.ending()

    async def _end_tasks(self, until_s: float) -> None:
        """Wait for the tasks of requests, as uvicorn does; cancel them when the drain is over."""
        tasks = self.server_state.tasks
        loop = asyncio.get_running_loop()
        while tasks and loop.time() < until_s and not self.force_exit:
            left_s = until_s - loop.time()
            await asyncio.wait(set(tasks), timeout=min(left_s, 0.1))
        if tasks and not self.force_exit:
            logger.error("Cancel %s running task(s), timeout graceful shutdown exceeded", len(tasks))
        for task in list(tasks):
            task.cancel(msg="Task cancelled, timeout graceful shutdown exceeded")

    @property
    def _notifier(self) -> Notifier | None:
        notifier: Notifier | None = getattr(self.config, "notifier", None)
        return notifier

    def _notify_stop(self) -> None:
        """Report the stop to systemd, once."""
        notifier = self._notifier
        if notifier is not None and not self._is_stop_notified:
            self._is_stop_notified = True
            notifier.stopping()

    def _left_s(self) -> float | None:
        if self._until_s is None:
            return None
        return max(self._until_s - asyncio.get_running_loop().time(), MIN_SHUTDOWN_S)


def _allow_listening(sockets: Sequence[socket.socket]) -> None:
    """Set SO_REUSEADDR: listening fails without it while connections of an earlier server linger."""
    for sock in sockets:
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
