# cython: annotation_typing=False, nonecheck=True
"""The counts of a lane's jobs, by outcome, reason, path and cause, and the histograms of their times.

Native where it is built (`tally.pxd` has the types), this very source elsewhere. Counters are not thread-safe: a lane
confines its counters to one thread or holds a lock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Tally"]

OUTCOMES = ("ok", "error", "timeout", "cancelled", "worker_lost")
SHED_REASONS = ("full", "displaced")
TRANSFER_PATHS = ("out_inband", "out_shm", "in_inband", "in_shm")
RESTART_CAUSES = ("crash", "timeout", "cancelled", "max_jobs", "age", "rss", "idle")


class Tally:
    """The counts of one lane since its start, with the histograms `waited_times` and `ran_times`."""

    def __init__(self, name: str, waited_times: Any, ran_times: Any) -> None:
        self.name = name
        # called for each finished and each shed job with ("job" or "shed", a text for people, its running time in ns)
        self.listener: Callable[[str, str, int], None] | None = None
        self._waited = waited_times
        self._ran = ran_times
        self._completed = dict.fromkeys(OUTCOMES, 0)
        self._shed = dict.fromkeys(SHED_REASONS, 0)
        self._moved = dict.fromkeys(TRANSFER_PATHS, 0)
        self._restarts = dict.fromkeys(RESTART_CAUSES, 0)

    def waited(self, ns: int) -> None:
        """Count the time from the offer of a job to its start."""
        self._waited.add(ns)

    def ran(self, ns: int) -> None:
        """Count the running time of a job."""
        self._ran.add(ns)
        if self.listener is not None:
            self.listener("job", self.name, ns)

    def ended(self, outcome: str) -> None:
        """Count the outcome of a job: ok, error, timeout, cancelled or worker_lost."""
        self._completed[outcome] += 1

    def shed(self, reason: str) -> None:
        """Count a shed job. The reason is full or displaced."""
        self._shed[reason] += 1
        if self.listener is not None:
            self.listener("shed", f"{self.name}: {reason}", 0)

    def moved(self, path: str, size_bytes: int) -> None:
        """Count bytes to a worker (out_inband, out_shm) or from one (in_inband, in_shm)."""
        self.add_moved(path, size_bytes)

    def add_moved(self, path: str, size_bytes: int) -> None:
        """Count bytes as `moved` does, for a caller in the core."""
        self._moved[path] += size_bytes

    def replied(self, ran_ns: int, waited_ns: int) -> None:
        """Count the times of a job that has ended at its worker."""
        self._ran.add(ran_ns)
        self._waited.add(waited_ns)
        if self.listener is not None:
            self.listener("job", self.name, ran_ns)

    def restarted(self, cause: str) -> None:
        """Count an ended worker. The cause is crash, timeout, cancelled, max_jobs, age, rss or idle."""
        self._restarts[cause] += 1
