"""The attach service of this process: its socket and its threads, from a moment after the first loop to the end.

It serves beside the program and never in its way: a socket that cannot be made is a line in the log at DEBUG. Its
threads end before a fork and start again after it; a forked child has a service of its own once it has a loop.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import ref

from penstock.runtime.attach.role import ProcessRole
from penstock.tasks.detectors.stalls import stall_watch
from penstock.tasks.observers import registry
from penstock.threads import join_wholly, own_number

if TYPE_CHECKING:
    import asyncio

    from penstock._core.tasks.heartbeat import Heartbeat
    from penstock.config import MonitorConfig

__all__ = ["AttachService", "attach_service"]

logger = logging.getLogger("penstock.monitor")

# a program that ends sooner needs no socket
START_S = 0.2
# how long a fork or the program's end waits for the threads
LONGEST_STOP_S = 1.0


class AttachService:
    """The attach service of a process. `is_allowed` false: it never starts."""

    def __init__(self) -> None:
        self.is_allowed = True
        self.role = ProcessRole()
        self._actions = self._is_wanted = False
        # Reentrant: a signal handler may fork or make a loop.
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._is_stopping = threading.Event()
        self._server: Any = None
        self._has_run = False
        self._ends_at_exit = False
        # the heartbeats of open loops, by the reference to their loop; None of a loop without native code
        self._followed: dict[ref[asyncio.AbstractEventLoop], tuple[Heartbeat | None, str]] = {}

    def add(
        self, loop: asyncio.AbstractEventLoop, config: MonitorConfig, heartbeat: Heartbeat | None, name: str
    ) -> None:
        """Serve for this loop too, if its config says so. The first one starts the service. Never raises."""
        if not config.attach or not self.is_allowed:
            return
        try:
            self._actions, self._is_wanted = self._actions or config.actions, True
            stall_watch.on_run, registry.on_unregister = self.ensure_thread, self.remove
            self._follow(ref(loop, self._forget), heartbeat, name)
            self.ensure_thread()
        except Exception as error:
            logger.debug("no monitor can attach to this process: %s", error)

    def _follow(self, loop: ref[asyncio.AbstractEventLoop], heartbeat: Heartbeat | None, name: str) -> None:
        self._followed[loop] = heartbeat, name
        if self._server is not None and heartbeat is not None:
            self._server.follow(heartbeat, name)

    def _forget(self, loop: ref[asyncio.AbstractEventLoop]) -> None:
        # also called from a garbage collection, at any point
        heartbeat, _ = self._followed.pop(loop, (None, ""))
        if heartbeat is not None and self._server is not None:
            self._server.unfollow(heartbeat)

    def remove(self, loop: asyncio.AbstractEventLoop) -> None:
        """Follow a closed loop no more."""
        self._forget(ref(loop, self._forget))

    # --- the thread

    def ensure_thread(self) -> None:
        """Start the thread unless it runs. A loop runs all the same without one."""
        try:
            with self._lock:
                self._start_thread()
        except Exception as error:
            logger.debug("no monitor can attach to this process: %s", error)

    def _start_thread(self) -> None:
        if self._thread is not None or not self._is_wanted or sys.is_finalizing():
            return
        if not self._ends_at_exit:
            self._ends_at_exit = True
            atexit.register(self.close)
        # of this thread alone: a former one may still be ending
        is_stopping = self._is_stopping = threading.Event()
        thread = threading.Thread(
            target=self._run, args=(is_stopping, own_number()), name="penstock-attach", daemon=True
        )
        # pydevd would stop it together with the loop's thread
        thread.pydev_do_not_trace = thread.is_pydev_daemon_thread = True  # type: ignore[attr-defined]
        self._thread = thread
        try:
            thread.start()
        except BaseException:
            # no thread was to be had, or Ctrl-C came while it started: then it ends at once
            is_stopping.set()
            self._thread = None
            raise

    def _run(self, is_stopping: threading.Event, starter: int) -> None:
        if starter == own_number():
            # the program's own kind of threads, such as gevent's: a wait here would stop its thread
            return
        try:
            if self._server is None and is_stopping.wait(START_S):
                return
            if self._server is None:
                self._server = self._made()
            self._server.run(is_stopping)
        except Exception as error:
            logger.debug("no monitor can attach to this process: %s", error)

    def _made(self) -> Any:
        # imported late: a program that ends soon does not need it
        from penstock.runtime.attach.serving import make_server

        server = make_server(self.role, self._actions)
        for heartbeat, name in list(self._followed.values()):
            if heartbeat is not None:
                server.follow(heartbeat, name)
        return server

    def close(self) -> None:
        """End the threads, and remove the socket's file."""
        with self._lock:
            self._stop_thread()
            server, self._server = self._server, None
        if server is not None:
            server.close()

    def _stop_thread(self) -> None:
        thread, self._thread = self._thread, None
        if thread is None or thread is threading.current_thread():
            return
        self._is_stopping.set()
        if self._server is not None:
            self._server.stop()
        join_wholly(thread, LONGEST_STOP_S)

    # --- around a fork

    def before_fork(self) -> None:
        """End the threads before the process is copied: Python warns of a fork beside threads."""
        self._lock.acquire()
        # a signal handler may fork while this call waits
        self._has_run = self._has_run or self._thread is not None
        self._stop_thread()

    def after_fork_in_parent(self) -> None:
        """Start the thread in the next turn of a running loop: Python's warning comes after this call."""
        with suppress(RuntimeError):
            # a child of a signal handler's fork comes here with a new lock
            self._lock.release()
        if not self._has_run:
            return
        self._has_run = False
        for known in list(self._followed):
            loop = known()
            if loop is not None and loop.is_running():
                with suppress(RuntimeError):
                    loop.call_soon_threadsafe(self.ensure_thread)
                    return
        # else at the begin of the next run

    def after_fork_in_child(self) -> None:
        """Give up the parent's socket. The child's service starts with a loop of its own."""
        self._lock = threading.RLock()
        self._thread = None
        self._has_run = False
        self._is_stopping = threading.Event()
        server, self._server = self._server, None
        self._followed.clear()
        self._is_wanted = False
        if server is not None:
            server.forked()


attach_service = AttachService()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=attach_service.before_fork,
        after_in_parent=attach_service.after_fork_in_parent,
        after_in_child=attach_service.after_fork_in_child,
    )
