"""`RollingCount`: counts over a sliding window, kept in a ring of buckets instead of one record for each event."""

from __future__ import annotations

from collections import deque

__all__ = ["RollingCount"]

BUCKET_COUNT = 24


class RollingCount:
    """Two counts over the last `window_s` seconds, in 24 steps.

    Times are those of the caller's clock, and never go back. Not thread-safe: use one only in one loop.
    """

    __slots__ = ("_buckets", "_step_s", "first", "second")

    def __init__(self, window_s: float) -> None:
        self._step_s = window_s / BUCKET_COUNT
        self._buckets: deque[list[float]] = deque()
        self.first = self.second = 0.0

    def add(self, now_s: float, first: float = 0.0, second: float = 0.0) -> None:
        """Add to both counts at the time `now_s`."""
        self.forget(now_s)
        if not self._buckets or now_s >= self._buckets[-1][0] + self._step_s:
            self._buckets.append([now_s, 0.0, 0.0])
        bucket = self._buckets[-1]
        bucket[1] += first
        bucket[2] += second
        self.first += first
        self.second += second

    def forget(self, now_s: float) -> None:
        """Remove the counts that are older than the window at the time `now_s`."""
        buckets, since_s = self._buckets, now_s - self._step_s * BUCKET_COUNT
        while buckets and buckets[0][0] <= since_s:
            _, first, second = buckets.popleft()
            self.first -= first
            self.second -= second
