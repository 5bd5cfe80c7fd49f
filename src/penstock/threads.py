"""Threads as the kernel sees them: their numbers, and their end, before which Python's `join` may return."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from time import monotonic, sleep

__all__ = ["join_wholly", "own_number"]

LOOK_S = 0.00005
# returns the kernel's number of the calling thread, also where Python's functions for threads are replaced
own_number = getattr(threading, "get_native_id", threading.get_ident)


def join_wholly(thread: threading.Thread, within_s: float) -> None:
    """Wait at most `within_s` seconds until a thread has ended, also in the kernel's list of threads.

    Before Python 3.13 `join` returns while the thread still ends, and a fork at that moment makes Python warn of
    threads. No effect for a thread that was never started.
    """
    until_s = monotonic() + within_s
    with suppress(RuntimeError):
        thread.join(within_s)
    path = f"/proc/self/task/{thread.native_id}"
    while thread.native_id is not None and os.path.exists(path) and monotonic() < until_s:
        sleep(LOOK_S)
