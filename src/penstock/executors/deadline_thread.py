"""Tells a lane which jobs' time is up, from a thread that lives while there is something to watch.

For lanes whose jobs belong to several loops, or to none: no loop's timers would do.
"""

from __future__ import annotations

import threading
from time import monotonic_ns
from typing import TYPE_CHECKING

from penstock.executors.deadlines import Deadlines

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.executors.job import Job

__all__ = ["Alarm"]

# so long the thread waits for something to watch, before it ends; the next job starts another
IDLE_S = 5.0


class Alarm:
    """Calls `late(job)`, in its own thread and without its lock, when a job's time is up."""

    def __init__(self, late: Callable[[Job], object], name: str) -> None:
        self._late = late
        self._name = name
        self._deadlines = Deadlines()
        self._changed = threading.Condition(threading.Lock())
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def add(self, job: Job) -> None:
        """Watch the job until it is discarded or late."""
        with self._changed:
            before_ns = self._deadlines.next_ns()
            due_ns = self._deadlines.add(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name=self._name, daemon=True)
                self._thread.start()
            elif before_ns is None or due_ns < before_ns:
                self._changed.notify()

    def discard(self, job: Job) -> None:
        """Watch it no more."""
        with self._changed:
            self._deadlines.discard(job)

    def close(self) -> None:
        """Nothing is left to watch: let the thread end."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    def _watch(self) -> None:
        while (late := self._next()) is not None:
            # emptied: a thread that waits holds no job
            while late:
                self._late(late.pop())

    def _next(self) -> list[Job] | None:
        """Wait; the jobs that are late now, perhaps none; None when it is time to end."""
        with self._changed:
            due_ns = self._deadlines.next_ns()
            wait_s = IDLE_S if due_ns is None else (due_ns - monotonic_ns()) / 1e9
            if wait_s > 0 and not self._is_closed:
                self._changed.wait(min(wait_s, threading.TIMEOUT_MAX))
            late = self._deadlines.expired(monotonic_ns())
            if not late and self._deadlines.next_ns() is None and (due_ns is None or self._is_closed):
                self._thread = None
                return None
            return late
