"""When a lane of threads gets more of them: jobs have waited, and the threads it has are blocked, not computing.

More threads help those that wait for a disk or a database; those that compute only share the cores (one core, with
a GIL) among more. Which it is, their CPU time tells. Arithmetic alone: the lane gives times and counts.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable

__all__ = ["Growth", "computing_cores", "threads_cpu_ns"]

# what a job may wait before more threads are considered, and how often that is looked at
PATIENCE_NS = 10_000_000
# where the threads compute, it is looked at less and less often, down to this
RARELY_NS = 16 * PATIENCE_NS
# threads that use this much of what they can use are computing
COMPUTING_SHARE = 0.5
# as many at once as make the lane a quarter larger: from 6 threads to 64 in 13 looks
STEP_SHARE = 4


def threads_cpu_ns(threads: Iterable[threading.Thread]) -> int:
    """The CPU time of these threads, which must all be alive; of the whole process where the system tells no better."""
    if not hasattr(time, "pthread_getcpuclockid"):
        return time.process_time_ns()
    idents = [thread.ident for thread in threads if thread.ident is not None]
    return sum(time.clock_gettime_ns(time.pthread_getcpuclockid(ident)) for ident in idents)


def computing_cores(cores: int) -> float:
    """How many cores' worth of CPU time a lane's threads use when they are said to compute."""
    has_gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    return COMPUTING_SHARE * (1 if has_gil else cores)


class Growth:
    """Looks at a lane while jobs are queued: `arm` when the first is, then `look` whenever `due_ns` has come."""

    __slots__ = ("_interval_ns", "_seen_cpu_ns", "_seen_ns", "computing", "due_ns")

    def __init__(self, computing: float) -> None:
        # in cores
        self.computing = computing
        self.due_ns: int | None = None
        self._interval_ns = PATIENCE_NS
        self._seen_ns = self._seen_cpu_ns = 0

    def arm(self, now_ns: int) -> bool:
        """Begin to look, if not begun already: at once, for the CPU time to compare with."""
        if self.due_ns is not None:
            return False
        self.due_ns, self._seen_ns, self._interval_ns = now_ns, 0, PATIENCE_NS
        return True

    def disarm(self) -> None:
        """Nothing is queued, or nothing can be done about it."""
        self.due_ns = None

    def look(self, now_ns: int, cpu_ns: int, waited_ns: int, threads: int) -> int:
        """How many threads to add now. `waited_ns` is what the next job has waited, `threads` how many there are."""
        if not self._seen_ns or waited_ns < PATIENCE_NS:
            return self._again(now_ns, cpu_ns, PATIENCE_NS, 0)
        used_cores = (cpu_ns - self._seen_cpu_ns) / max(1, now_ns - self._seen_ns)
        if used_cores >= self.computing:
            self._interval_ns = min(RARELY_NS, 2 * self._interval_ns)
            return self._again(now_ns, cpu_ns, self._interval_ns, 0)
        self._interval_ns = PATIENCE_NS
        return self._again(now_ns, cpu_ns, PATIENCE_NS, max(1, threads // STEP_SHARE))

    def _again(self, now_ns: int, cpu_ns: int, delay_ns: int, more: int) -> int:
        self._seen_ns, self._seen_cpu_ns, self.due_ns = now_ns, cpu_ns, now_ns + delay_ns
        return more
