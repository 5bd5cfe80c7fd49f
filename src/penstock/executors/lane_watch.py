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

# the longest that it sleeps at once
LONGEST_SLEEP_S = 3600.0
# how long it stays with nothing to watch: the next job with a timeout is often near, and a thread costs 100 us
LINGER_NS = 10_000_000_000


class Watch:
    """`look`, a method of the lane, is called in the watch's thread; under the lock it calls `rest` with what is due
    next. While the watch sleeps it does not hold the lane, which may be dropped."""

    __slots__ = ("_bell", "_is_lingering", "_look", "_name", "_until_ns", "thread")

    def __init__(self, name: str, look: Callable[[], None]) -> None:
        self.thread: threading.Thread | None = None
        self._name = name
        self._look = weakref.WeakMethod(look)
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._until_ns = 0
        self._is_lingering = False

    def by(self, due_ns: int, daemon: bool) -> None:
        """See to it that a look begins at that time."""
        self._is_lingering = False
        if self.thread is None:
            self._start(due_ns, daemon)
        elif due_ns < self._until_ns:
            # it is to sleep less, not to look now: most jobs are done long before they are due
            self._until_ns = due_ns
            self._bell.put(None)

    def _start(self, due_ns: int, daemon: bool) -> None:
        self._until_ns = due_ns
        thread = threading.Thread(target=self._run, name=self._name, daemon=daemon)
        try:
            thread.start()
        except RuntimeError:
            return  # the system gives no more threads: the next one asks again
        self.thread = thread

    def rest(self, due_ns: int | None, may_linger: bool) -> None:
        """The next look is then; None: there is nothing to watch, and the thread ends, now or if nothing comes."""
        if due_ns is not None:
            self._until_ns = due_ns
        elif may_linger and not self._is_lingering:
            self._is_lingering, self._until_ns = True, time.monotonic_ns() + LINGER_NS
        else:
            self._is_lingering, self.thread = False, None

    def wake(self) -> None:
        """Look now."""
        self._until_ns = 0
        self._bell.put(None)

    def _run(self) -> None:
        while True:
            sleep_s = (self._until_ns - time.monotonic_ns()) / 1e9
            if sleep_s > 0:
                try:
                    self._bell.get(timeout=min(LONGEST_SLEEP_S, sleep_s))
                except Empty:
                    pass
                continue
            look = self._look()
            if look is None:
                return
            look()
            del look
            # none but a look, under the lock, ends the thread; another may have been started since
            if self.thread is not threading.current_thread():
                return
