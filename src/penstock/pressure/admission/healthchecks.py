"""Health checks: their recognition, and the bound on those that pass while other requests wait."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

from penstock.config import PressureConfig

__all__ = ["PATHS", "HealthChecks"]

PATHS: tuple[str, ...] = PressureConfig().health_paths
METHODS = frozenset({"GET", "HEAD"})
MOST_AT_ONCE = 16
# a token bucket, with the numbers of the native loop's bound on urgent requests
MOST_IN_A_BURST = 20
MOST_PER_SECOND = 100


class HealthChecks:
    """Health checks: GET or HEAD of one of `paths`, exactly. A bounded number passes; the rest waits like others."""

    def __init__(self, paths: Iterable[str] = PATHS, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._paths = frozenset((paths,) if isinstance(paths, str) else paths)
        self._clock = clock
        self._allowance, self._filled_s = float(MOST_IN_A_BURST), clock()
        self.inside = 0

    def is_one(self, method: str, path: str) -> bool:
        """Return whether the request is a health check."""
        return path in self._paths and method in METHODS

    def enter(self) -> bool:
        """Return whether one more may pass now. If so, `leave()` follows when it is answered."""
        now_s = self._clock()
        grown = self._allowance + (now_s - self._filled_s) * MOST_PER_SECOND
        self._allowance, self._filled_s = min(grown, MOST_IN_A_BURST), now_s
        if self._allowance < 1 or self.inside >= MOST_AT_ONCE:
            return False
        self._allowance -= 1
        self.inside += 1
        return True

    def leave(self) -> None:
        """Account for the answer of a check that passed."""
        self.inside -= 1
