"""`RetryBudget`: retries limited to a share of all requests and to the time before the deadline.

Three attempts in each of three services in a chain multiply the load by 27 during an overload. A budget limits the
additional load to a tenth. It has Finagle's form: a share of the requests, and a floor for times of few requests.
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
    """The counts of a retry budget.

    `requests` and `retries` are those of the last `window_s` seconds, and `left` is the count of retries that the
    budget allows now. `denied` is the count of retries without budget since the start.
    """

    requests: int
    retries: int
    left: int
    denied: int


class RetryBudget:
    """A budget of `ratio` retries a request and `floor_per_s` retries a second, over the last `window_s` seconds.

    Use one budget for one backend in one loop, and share it among all callers. `ratio` and `floor_per_s` are at least
    0; `window_s` is above 0. `seed` is the seed of the random delays, for reproducible runs. Raises ValueError for
    values outside these ranges.
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
        """The count of retries that the budget allows now."""
        self._counts.forget(_now_s())
        # sums of tenths have a rounding error
        return max(0, int(self._counts.first * self._ratio + self._floor - self._counts.second + 1e-9))

    def request(self) -> None:
        """Count a first attempt, which adds `ratio` retries to the budget."""
        self._counts.add(_now_s(), 1)

    def spend(self) -> bool:
        """Take one retry from the budget. Return False if none is left."""
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
        """Await `function()` and return its result; repeat it while it raises one of `errors`.

        `function` must be idempotent. `attempts` is the highest count of calls, at least 1. The delay before the n-th
        retry is random, from 0 to `backoff_s * 2**(n - 1)` seconds but at most `most_backoff_s`; the error's
        `retry_after_s`, if it has one, is added. Raises the last error, with a note of the reason why it was not
        retried: no attempt left, no budget left, or a deadline before the next attempt. Raises ValueError for
        `attempts` below 1.
        """
        if attempts < 1:
            raise ValueError(f"attempts = {attempts}: at least 1")
        self.request()
        retries = 0
        while True:
            try:
                return await function()
            except errors as error:
                delay_s = self._delay_s(error, min(most_backoff_s, backoff_s * 2**retries))
                refusal = "that was the last attempt" if retries + 1 == attempts else self._refusal(delay_s)
                if refusal:
                    error.add_note(f"not retried: {refusal}")
                    raise
            await asyncio.sleep(delay_s)
            retries += 1

    def _delay_s(self, error: Exception, most_s: float) -> float:
        """Return the delay with full jitter, in seconds: calls that failed together are not retried together."""
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
        """Return the present counts."""
        left = self.left
        return RetryStatistics(round(self._counts.first), round(self._counts.second), left, self._denied)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
