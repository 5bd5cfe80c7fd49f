"""A lane's watch: one thread that looks at the lane when something is due, and is there only while something is.

Guarded by the lane's lock, which the look itself takes: all methods but the thread's own are called under it.
"""

from __future__ import annotations

import threading
import time
import weakref
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Watch"]

# the longest that it sleeps without looking
LONGEST_SLEEP_S = 3600.0


class Watch:
    """`look`, a method of the lane, is called in the watch's thread; under the lock it calls `rest` with what is due
    next. While the watch sleeps it does not hold the lane, which may be dropped."""

    __slots__ = ("_bell", "_look", "_name", "_until_ns", "thread")

    def __init__(self, name: str, look: Callable[[], None]) -> None:
        self.thread: threading.Thread | None = None
        self._name = name
        self._look = weakref.WeakMethod(look)
        self._bell: SimpleQueue[None] = SimpleQueue()
        # 0 while it is awake or has been woken
        self._until_ns = 0

    def by(self, due_ns: int, daemon: bool) -> None:
        """See to it that a look begins at that time."""
        if self.thread is not None:
            if due_ns < self._until_ns:
                self.wake()
            return
        thread = threading.Thread(target=self._run, name=self._name, daemon=daemon)
        try:
            thread.start()
        except RuntimeError:
            return  # the system gives no more threads: the next one asks again
        self.thread = thread

    def rest(self, due_ns: int | None) -> None:
        """The next look is then; None: there is nothing to watch, the thread ends."""
        self._until_ns = due_ns or 0
        if due_ns is None:
            self.thread = None

    def wake(self) -> None:
        """Look now."""
        if self.thread is not None:
            self._until_ns = 0
            self._bell.put(None)

    def _run(self) -> None:
        while (look := self._look()) is not None:
            look()
            del look
            # under the lock nobody but a look ends the thread, and nobody else looks
            if self.thread is not threading.current_thread():
                return
            sleep_s = (self._until_ns - time.monotonic_ns()) / 1e9
            try:
                self._bell.get(timeout=min(LONGEST_SLEEP_S, max(0.0, sleep_s)))
            except Empty:
                pass
