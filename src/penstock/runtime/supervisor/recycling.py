"""The bounds after which a working worker is replaced: requests, age, resident memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

__all__ = ["RecycleBounds", "WorkerBounds"]

# of the bound by age, so that workers that were started together are not replaced together
AGE_JITTER = 0.1


@dataclass(frozen=True, slots=True)
class RecycleBounds:
    """The bounds of every worker; None for no bound."""

    max_requests: int | None = None
    max_requests_jitter: int = 0
    max_age_s: float | None = None
    max_rss_bytes: int | None = None

    def of_worker(self, chance: random.Random) -> WorkerBounds:
        """Return the bounds of one worker, with its share of jitter."""
        requests, age_s = self.max_requests, self.max_age_s
        return WorkerBounds(
            None if requests is None else requests + chance.randint(0, self.max_requests_jitter),
            None if age_s is None else age_s * (1 + AGE_JITTER * chance.random()),
            self.max_rss_bytes,
        )


@dataclass(frozen=True, slots=True)
class WorkerBounds:
    """The bounds of one worker; None for no bound."""

    requests: int | None = None
    age_s: float | None = None
    rss_bytes: int | None = None

    def exceeded(self, served: int, age_s: float, rss_bytes: int | None) -> str:
        """Return the reason for which the worker is to be replaced, or an empty text."""
        if self.requests is not None and served >= self.requests:
            return f"it has served {served} requests"
        if self.age_s is not None and age_s >= self.age_s:
            return f"it is {age_s:.0f} s old"
        if self.rss_bytes is not None and rss_bytes is not None and rss_bytes > self.rss_bytes:
            return f"it has {rss_bytes / 2**20:.0f} MiB of resident memory"
        return ""
