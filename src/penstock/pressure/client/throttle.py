"""`Throttle`: client-side throttling, which refuses calls that the backend would probably refuse.

It is the adaptive throttling of Google's *Site Reliability Engineering*, chapter "Handling Overload". Each client
decides by the results of its own calls, so servers need no change.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from functools import wraps
from random import Random
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from penstock.errors import Overloaded
from penstock.pressure.client.rolling_window import RollingCount

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Hashable
    from types import TracebackType

__all__ = ["Throttle", "ThrottleStatistics"]

P = ParamSpec("P")
T = TypeVar("T")
MOST_KEYS = 1024
UNANSWERED = (TimeoutError, ConnectionError)


@dataclass(frozen=True, slots=True)
class ThrottleStatistics:
    """The counts of a throttle.

    `requests` is the count of calls that ended or were refused here in the last `window_s` seconds, and `accepts` the
    count of those that the backend accepted. `refused` is the count of calls refused here since the start.
    `probability` is that of refusing the next call, 0 to 1.
    """

    requests: int
    accepts: int
    refused: int
    probability: float


class Throttle:
    """A throttle that refuses a call with probability `max(0, (requests - k * accepts) / (requests + 1))`.

    A refusal raises `Overloaded`. `requests` counts the calls that ended or were refused here in the last `window_s`
    seconds. `accepts` counts the calls that ended without `Overloaded` or one of `errors`; any other exception is an
    answer. Calls in flight do not count: many at once do not show that the backend refuses. Cancelled calls do not
    count either, so put a timeout inside the throttle, which then sees its TimeoutError.

    `most` is the largest probability of a refusal, 0 to 1. The book has no such bound. Without it, recovery from a long
    outage is noticed only after a dozen windows, because only one call in a thousand reaches the backend.

    `k` is at least 1. At 2 the backend gets twice the calls that it accepts, so a recovery is noticed soon. Use a lower
    value if a refusal costs the backend as much as an answer. `seed` is the seed of the random decisions, for
    reproducible runs. `name` appears in messages. Raises ValueError for values outside these ranges.

        throttle = Throttle()

        async with throttle:
            await call_the_backend()

    `throttle.of(key)` returns a throttle for each key, such as a host or a method.
    """

    def __init__(
        self,
        k: float = 2.0,
        *,
        window_s: float = 120.0,
        most: float = 0.9,
        errors: tuple[type[BaseException], ...] = UNANSWERED,
        seed: int | None = None,
        name: str = "",
    ) -> None:
        if not (k >= 1 and window_s > 0 and 0 <= most <= 1):
            raise ValueError(f"k = {k}: at least 1; window_s = {window_s}: above 0; most = {most}: from 0 to 1")
        self.name = name
        self._k, self._window_s, self._most, self._errors = k, window_s, most, errors
        self._random = Random(seed)
        self._counts = RollingCount(window_s)
        self._refused = 0
        self._children: OrderedDict[Hashable, Throttle] = OrderedDict()

    def of(self, key: Hashable) -> Throttle:
        """Return the throttle of this key, with its own counts. The 1024 most recently used are kept."""
        child = self._children.get(key)
        if child is None:
            name = f"{self.name} {key}".lstrip()
            child = Throttle(self._k, window_s=self._window_s, most=self._most, errors=self._errors, name=name)
            child._random = self._random
            self._children[key] = child
            if len(self._children) > MOST_KEYS:
                self._children.popitem(last=False)
        self._children.move_to_end(key)
        return child

    @property
    def probability(self) -> float:
        """The probability of refusing the next call, 0 to 1."""
        self._counts.forget(_now_s())
        return self._probability()

    def _probability(self) -> float:
        requests, accepts = self._counts.first, self._counts.second
        return min(self._most, max(0.0, (requests - self._k * accepts) / (requests + 1)))

    def enter(self) -> None:
        """Permit a call or raise `Overloaded`, reason `throttled`. Call `leave()` once a permitted call has ended."""
        now_s = _now_s()
        self._counts.forget(now_s)
        probability = self._probability()
        if probability > 0 and self._random.random() < probability:
            self._counts.add(now_s, 1)
            self._refused += 1
            raise Overloaded(self._message(probability), reason="throttled")

    def _message(self, probability: float) -> str:
        counts = f"{self._counts.second:.0f} of {self._counts.first:.0f} calls accepted in {self._window_s:g} s"
        return f"throttled{' ' * bool(self.name)}{self.name}: {counts}, {probability:.0%} are refused: try later"

    def leave(self, error: BaseException | None = None) -> None:
        """Count a call's end: `error` is the exception that it raised, or None."""
        if not isinstance(error, asyncio.CancelledError):
            self._counts.add(_now_s(), 1, not isinstance(error, (Overloaded, *self._errors)))

    async def __aenter__(self) -> None:
        self.enter()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave(error)

    def guard(self, function: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """Decorate an async function: each call passes this throttle. Return the decorated function."""

        @wraps(function)
        async def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            async with self:
                return await function(*args, **kwargs)

        return guarded

    def statistics(self) -> ThrottleStatistics:
        """Return the present counts."""
        probability = self.probability
        return ThrottleStatistics(round(self._counts.first), round(self._counts.second), self._refused, probability)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
