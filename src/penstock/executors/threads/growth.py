"""Growth of a lane of threads: threads are added while jobs wait and the existing threads are blocked.

More threads help if the existing ones wait for a disk or a database. If they compute, more threads only share the same
cores (one core, with a GIL). The CPU time of the threads shows the difference. This module is arithmetic alone.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable

__all__ = ["Growth", "computing_cores", "threads_cpu_ns"]

# How long a job waits before threads are added, and the interval of the checks.
PATIENCE_NS = 10_000_000
# While the threads compute, the interval doubles up to this.
RARELY_NS = 16 * PATIENCE_NS
# Threads that use this share of the CPU time they can get are computing.
COMPUTING_SHARE = 0.5
# A step adds a quarter of the threads: from 6 threads to 64 in 13 steps.
STEP_SHARE = 4


def threads_cpu_ns(threads: Iterable[threading.Thread]) -> int:
    """Return the CPU time of live threads, in ns; of the whole process if the system does not measure threads."""
    if not hasattr(time, "pthread_getcpuclockid"):
        return time.process_time_ns()
    idents = [thread.ident for thread in threads if thread.ident is not None]
    return sum(time.clock_gettime_ns(time.pthread_getcpuclockid(ident)) for ident in idents)


def computing_cores(cores: int) -> float:
    """Return the CPU time per time, in cores, from which a lane's threads count as computing."""
    has_gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    return COMPUTING_SHARE * (1 if has_gil else cores)


class Growth:
    """The state of a lane's growth. `arm` when the first job is queued, then `look` at each `due_ns`."""

    __slots__ = ("_interval_ns", "_seen_cpu_ns", "_seen_ns", "computing", "due_ns")

    def __init__(self, computing: float) -> None:
        # in cores
        self.computing = computing
        self.due_ns: int | None = None
        self._interval_ns = PATIENCE_NS
        self._seen_ns = self._seen_cpu_ns = 0

    def arm(self, now_ns: int) -> bool:
        """Begin the checks with one at `now_ns`, which reads the CPU time to compare with. Return False if begun
        before."""
        if self.due_ns is not None:
            return False
        self.due_ns, self._seen_ns, self._interval_ns = now_ns, 0, PATIENCE_NS
        return True

    def disarm(self) -> None:
        """Stop the checks: nothing is queued, or the lane is at its limit."""
        self.due_ns = None

    def look(self, now_ns: int, cpu_ns: int, waited_ns: int, threads: int) -> int:
        """Return the number of threads to add now. `waited_ns` is the wait of the next job, `threads` their number."""
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
