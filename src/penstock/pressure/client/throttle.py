"""A client's own restraint: what a backend would refuse anyway is refused here, before it costs the backend anything.

The adaptive throttling of Google's SRE book, chapter "Handling Overload". Each client decides for itself, by what it
has seen; no server needs to know.
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
    """Of the last `window_s`: `requests` that ended or were refused here, `accepts` of them. `refused` since the start.

    `probability` is that of the next refusal, 0 to 1.
    """

    requests: int
    accepts: int
    refused: int
    probability: float


class Throttle:
    """Refuses a call with probability `max(0, (requests - k * accepts) / (requests + 1))`, as `Overloaded`.

    `requests` are the calls that ended in the last `window_s` seconds, those refused here too; `accepts` came back
    without `Overloaded` or one of `errors`. Any other exception is an answer. A call in flight counts for nothing yet:
    many at once are no sign that a backend refuses. Nor does a call that is cancelled: a timeout belongs inside, where
    its TimeoutError is seen.

    No more than `most` of the calls are refused. The book has no such bound, and its formula takes a dozen windows to
    notice that a backend which had been gone for long is back: by then only one call in a thousand goes to look.

    `k`, at least 1: at 2 a backend gets twice what it accepts, and tells of its recovery soon; nearer to 1 where a
    refusal costs it as much as an answer. `seed` makes the refusals the same in every run. Raises ValueError.

        throttle = Throttle()

        async with throttle:
            await call_the_backend()

    `throttle.of(key)` is one for each key (a host, a method), of which the 1024 used last are kept.
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
        """The throttle of this key, with counts of its own."""
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
        """That the next call is refused, 0 to 1."""
        self._counts.forget(_now_s())
        return self._probability()

    def _probability(self) -> float:
        requests, accepts = self._counts.first, self._counts.second
        return min(self._most, max(0.0, (requests - self._k * accepts) / (requests + 1)))

    def enter(self) -> None:
        """Let a call be made, or refuse it: raises Overloaded, reason `throttled`. Then `leave()` once it is over."""
        now_s = _now_s()
        self._counts.forget(now_s)
        probability = self._probability()
        if probability > 0 and self._random.random() < probability:
            self._counts.add(now_s, 1)
            self._refused += 1
            raise Overloaded(self._message(probability), reason="throttled")

    def _message(self, probability: float) -> str:
        counts = f"{self._counts.second:.0f} of {self._counts.first:.0f} calls accepted in {self._window_s:g} s"
        return f"throttled{' ' * bool(self.name)}{self.name}: {counts}, {probability:.0%} are not made: try later"

    def leave(self, error: BaseException | None = None) -> None:
        """Count how the call ended: `error` is what it raised, None if it came back."""
        if not isinstance(error, asyncio.CancelledError):
            self._counts.add(_now_s(), 1, not isinstance(error, (Overloaded, *self._errors)))

    async def __aenter__(self) -> None:
        self.enter()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave(error)

    def guard(self, function: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """Decorate an async function: each call of it goes through this throttle."""

        @wraps(function)
        async def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            async with self:
                return await function(*args, **kwargs)

        return guarded

    def statistics(self) -> ThrottleStatistics:
        """Counts as they are now."""
        probability = self.probability
        return ThrottleStatistics(round(self._counts.first), round(self._counts.second), self._refused, probability)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
