"""uvicorn's server with penstock's start and end: it listens after the application's startup, and loses no client.

In a worker process it drains when its parent has ended.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import select
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
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

__all__ = ["ENDING", "FAILED", "MAX_REPORT_BYTES", "STARTED", "UvicornServer", "report"]

logger = logging.getLogger("uvicorn.error")

# the least time of the application's shutdown, even if requests have taken all of the drain
MIN_SHUTDOWN_S = 0.5
# a worker's report of its start or end to its parent: the word, and its process id or the reason
STARTED, FAILED, ENDING = "started", "failed", "ending"
MAX_REPORT_BYTES = 2000


class UvicornServer(uvicorn.Server):
    """uvicorn's server. `owned` are the listeners that no other server goes on with."""

    owned: Sequence[socket.socket] = ()
    _until_s: float | None = None
    _is_stop_notified = False
    _signalled_s: float | None = None
    _is_delay_logged = False
    _lifespan: BoundedLifespan | None = None

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until a signal ends it."""
        _drain_with_parent()
        super().run(sockets=sockets)

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Load the application and serve it until a signal ends it."""
        # imports and the lifespan's startup block the loop while no client waits; `startup` resumes the watch
        loop = asyncio.get_running_loop()
        pause_watch(loop)
        stall_watch.exempt_turn(loop)
        await super().serve(sockets=sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, then listen. SystemExit(3) if either fails; a drain may end it too."""
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
        report(self.config, STARTED, str(os.getpid()))
        notifier = self._notifier
        if notifier is not None:
            notifier.ready(f"serves by process {os.getpid()}")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Note a signal. The application's startup has the drain's time from then on; a drain may be delayed."""
        self._notify_stop()
        if self._delay_drain(sig):
            return
        super().handle_exit(sig, frame)
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
        return await super().on_tick(counter)

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
        report(self.config, ENDING, str(os.getpid()))

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


def report(config: Any, word: str, text: str) -> bool:
    """Report this worker's start or end to the parent. Return False in a process without one."""
    channel: socket.socket | None = getattr(config, "start_reports", None)
    if channel is None:
        return False
    with suppress(OSError):
        message = f"{word} {text}".encode(errors="backslashreplace")
        channel.send(message[:MAX_REPORT_BYTES], socket.MSG_DONTWAIT)
    return True


def _allow_listening(sockets: Sequence[socket.socket]) -> None:
    """Set SO_REUSEADDR: listening fails without it while connections of an earlier server linger."""
    for sock in sockets:
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


def _drain_with_parent() -> None:
    """Drain by SIGTERM when the parent has ended for any reason. Does nothing in a process without one."""
    parent = multiprocessing.parent_process()
    if parent is None or threading.current_thread() is not threading.main_thread():
        return
    # the kernel closes the other end, which only the parent has
    arguments = (parent.sentinel,)
    threading.Thread(target=_wait_for_parent, args=arguments, name="penstock-parent", daemon=True).start()


def _wait_for_parent(lifeline_fd: int) -> None:
    poll = select.poll()
    # no event but the hang-up
    poll.register(lifeline_fd, 0)
    poll.poll()
    os.kill(os.getpid(), signal.SIGTERM)
