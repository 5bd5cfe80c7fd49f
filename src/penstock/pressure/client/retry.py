"""Retries that cannot make an overload worse: a share of all requests, never more, and never past the deadline.

Three attempts each, in a chain of three services, are 27 times the load just when there is least room for it. A budget
bounds the whole at a tenth more, whatever fails. The form is Finagle's: a share, and a floor for quiet hours.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, TypeVar

from penstock.errors import Overloaded
from penstock.pressure.client.deadline import remaining_s
from penstock.pressure.client.rolling_window import RollingCount

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["RetryBudget", "RetryStatistics"]

T = TypeVar("T")
RETRIED = (Overloaded, TimeoutError, ConnectionError)


@dataclass(frozen=True, slots=True)
class RetryStatistics:
    """Of the last `window_s`: `requests`, `retries`, and how many more are `left`. `denied` since the start."""

    requests: int
    retries: int
    left: int
    denied: int


class RetryBudget:
    """At most `ratio` retries a request, plus `floor_per_s` a second, over the last `window_s` seconds.

    `seed` makes the waits the same in every run. One budget for one backend, shared by all who call it, of one loop.
    Raises ValueError.
    """

    def __init__(
        self, ratio: float = 0.1, *, floor_per_s: float = 1.0, window_s: float = 10.0, seed: int | None = None
    ) -> None:
        if not (ratio >= 0 and floor_per_s >= 0 and window_s > 0):
            raise ValueError(
                f"ratio = {ratio}, floor_per_s = {floor_per_s}: at least 0; window_s = {window_s}: above 0"
            )
        self._ratio, self._floor = ratio, floor_per_s * window_s
        self._counts = RollingCount(window_s)
        self._random = Random(seed)
        self._denied = 0

    @property
    def left(self) -> int:
        """How many retries there is budget for now."""
        self._counts.forget(_now_s())
        # a count of tenths is a hair off
        return max(0, int(self._counts.first * self._ratio + self._floor - self._counts.second + 1e-9))

    def request(self) -> None:
        """Count a first attempt: it pays in."""
        self._counts.add(_now_s(), 1)

    def spend(self) -> bool:
        """Take out one retry; False if there is no budget for it."""
        if self.left < 1:
            self._denied += 1
            return False
        self._counts.add(_now_s(), 0, 1)
        return True

    async def retry(
        self,
        function: Callable[[], Awaitable[T]],
        *,
        attempts: int = 3,
        backoff_s: float = 0.05,
        most_backoff_s: float = 5.0,
        errors: tuple[type[Exception], ...] = RETRIED,
    ) -> T:
        """Await `function()`, which must be idempotent, up to `attempts` times in all, while it raises one of `errors`.

        Before the n-th retry a random time up to `backoff_s * 2**(n - 1)` passes, at most `most_backoff_s`, and at
        least the error's `retry_after_s` if it has one. Raises the last error, with a note of why it was not retried:
        no attempt or no budget left, or the deadline would pass first.
        """
        if attempts < 1:
            raise ValueError(f"attempts = {attempts}: at least 1")
        self.request()
        for retries in range(attempts):
            try:
                return await function()
            except errors as error:
                delay_s = self._delay_s(error, min(most_backoff_s, backoff_s * 2**retries))
                refusal = "that was the last attempt" if retries + 1 == attempts else self._refusal(delay_s)
                if refusal:
                    error.add_note(f"not retried: {refusal}")
                    raise
            await asyncio.sleep(delay_s)
        raise AssertionError("the last attempt returns or raises")

    def _delay_s(self, error: Exception, most_s: float) -> float:
        """Full jitter: who failed together does not come back together."""
        jitter_s = self._random.uniform(0.0, most_s)
        after_s = getattr(error, "retry_after_s", None)
        return jitter_s + (after_s if after_s and after_s > 0 else 0.0)

    def _refusal(self, delay_s: float) -> str:
        left_s = remaining_s()
        if left_s is not None and left_s <= delay_s:
            return f"the deadline passes in {left_s:.3f} s, the next attempt would be in {delay_s:.3f} s"
        if not self.spend():
            return f"the budget is spent ({self._counts.second:.0f} retries of {self._counts.first:.0f} requests)"
        return ""

    def statistics(self) -> RetryStatistics:
        """Counts as they are now."""
        left = self.left
        return RetryStatistics(round(self._counts.first), round(self._counts.second), left, self._denied)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
