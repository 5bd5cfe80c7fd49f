"""The gate: how many may be in flight, who waits, for how long, and who is refused at once.

The work is done in `penstock._core.sync.gate`; this module has its public class, its exceptions, its windows for
a limit that moves, and its statistics. Knows no server and no protocol.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar
from weakref import WeakSet

from penstock.errors import Overloaded
from penstock.expiry import expiry
from penstock.pressure.admission.core import REASONS, Entry, GateCore
from penstock.pressure.admission.registry import register
from penstock.pressure.admission.streams import Stream
from penstock.pressure.limits import LEAST_SAMPLES, GrowingLimit, Limit, Window, make_limit
from penstock.pressure.renames import refuse_former_names
from penstock.times import Histogram, Times, taken

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Hashable, Mapping

__all__ = ["Entry", "Gate", "GateStatistics", "Priority"]

P = ParamSpec("P")
T = TypeVar("T")

# How long one may wait where nothing else is said: half of the deadline at most.
MAX_WAIT_S = 0.05
STREAMS = REASONS.index("streams")
# A full gate asks its limit for more so many times in a window.
FULL_LOOKS = 5
_numbers = itertools.count(1)


class Priority(IntEnum):
    """The classes of entries: each is served before those below it, and refused after them."""

    CRITICAL = 0
    HIGH = 1
    NORMAL = 2
    LOW = 3


@dataclass(frozen=True, slots=True)
class GateStatistics:
    """A gate at one moment. Gauges are of now; counts and times so far."""

    name: str
    # permits there may be, before `scale`, which multiplies them
    limit: int
    scale: float
    # permits that are held; entries that wait, and how long the oldest has
    inflight: int
    queued: int
    oldest_wait_s: float
    # entries that came in, that came out again, and that had to wait before they came in
    admitted: int
    finished: int
    waited: int
    # of those that waited and came in: how long; of those that were measured: the time inside
    wait: Times = field(default_factory=Times)
    service: Times = field(default_factory=Times)
    # reason -> entries refused
    sheds: Mapping[str, int] = field(default_factory=dict)
    # why the limit last moved, and when, on the loop's clock (0 if it never has)
    limit_reason: str = ""
    limit_moved_at_s: float = 0.0
    # answers that go on: they hold no permit any more
    streams: int = 0

    if not TYPE_CHECKING:
        __getattr__ = refuse_former_names({"entered": "admitted", "left": "finished"})


class Gate(GateCore):
    """Lets as many in as the limit says, has others wait for a bounded time, and refuses the rest at once.

    `limit` is a number, "auto", or an object with `update()` as in `penstock.pressure.limits`. `initial`: what "auto"
    starts from (10); up to so many, and at least 100, are let in before the first have ended. `max_wait_s`: the
    longest wait (default: 0.05, or half of the deadline if that is less; 0 never waits, `math.inf` waits as long as it
    takes). `deadline_s`: the time that an entry has in all. `reserve`: permits beyond the limit that only CRITICAL
    entries take. `max_queued`: the longest queue. `max_streams`: how many entries may have become streams; None for any
    number. A refusal raises `penstock.errors.Overloaded`.

    A gate belongs to the event loop that it is first used in. Not thread-safe. Raises ValueError for a bad argument.
    """

    def __init__(
        self,
        limit: int | Literal["auto"] | Limit,
        *,
        initial: int | None = None,
        max_wait_s: float | None = None,
        deadline_s: float | None = None,
        reserve: int = 0,
        name: str = "",
        max_queued: int = 10_000,
        max_streams: int | None = None,
    ) -> None:
        if max_wait_s is None:
            max_wait_s = MAX_WAIT_S if deadline_s is None else min(MAX_WAIT_S, deadline_s / 2)
        _check("max_wait_s", max_wait_s, max_wait_s >= 0, "0 or more seconds, math.inf for any")
        _check("deadline_s", deadline_s, deadline_s is None or deadline_s > 0, "more than 0 seconds, or None")
        _check("reserve", reserve, reserve >= 0, "0 or more permits")
        _check("max_queued", max_queued, max_queued >= 0, "0 or more entries")
        _check("max_streams", max_streams, max_streams is None or max_streams >= 0, "0 or more streams, or None")
        self._limiter = make_limit(limit, initial=initial)
        super().__init__(
            self._limiter.value, max_wait_s, math.inf if deadline_s is None else deadline_s, reserve, max_queued
        )
        self.error = Overloaded
        self.expires_at = expiry.get
        self.name = name or f"gate-{next(_numbers)}"
        self.waits, self.services = Histogram(), Histogram()
        self.max_streams = max_streams
        # weakly: a stream of a loop that was closed is not counted
        self.live_streams: WeakSet[Stream] = WeakSet()
        self._reason = self._limiter.reason
        self._moved_at_s = 0.0
        self.began_s = -math.inf
        self._finished_before = 0
        self._watch()
        register(self)

    def __repr__(self) -> str:
        return f"<Gate {self.name!r}: {self.inflight} of {self.limit} in flight, {self.queued()} queued>"

    # --- entering ---

    async def enter(
        self,
        *,
        priority: int = Priority.NORMAL,
        key: Hashable = None,
        arrived_s: float | None = None,
        deadline_s: float | None = None,
    ) -> None:
        """Wait for a permit; `leave()` gives it back. Raises Overloaded when refused."""
        await self.through(priority, key, arrived_s, deadline_s)

    def guard(self, fn: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """Decorate an async function: each call passes the gate. A refused call raises Overloaded."""

        @functools.wraps(fn)
        async def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            async with self:
                return await fn(*args, **kwargs)

        return guarded

    # --- streams ---

    def stream(self, entry: Entry, *, holds_drain: bool = False) -> Stream | None:
        """Turn an entry that is inside into a stream, to be left in its place; None if there are `max_streams`.

        The entry's permit is given back. How long it was held tells nothing of the service. `holds_drain`: a drain
        waits for the stream as for an entry; others it waits for only as long as their connections are busy.
        """
        if not entry.is_inside:
            raise RuntimeError("this entry has no permit: it cannot become a stream")
        if self.max_streams is not None and len(self.live_streams) >= self.max_streams:
            return None
        entry.is_begun = entry.is_inside = False
        stream = Stream(self, holds_drain=holds_drain)
        self.leave()
        return stream

    def shed_stream(self) -> Overloaded:
        """Count a stream that was refused, as there are `max_streams`; its exception."""
        self.sheds[STREAMS] += 1
        self.notify(REASONS[STREAMS])
        return Overloaded(None, REASONS[STREAMS], 0, self.max_streams or 0, None, 0.0, self.name)

    # --- the limit ---

    def resize(self, limit: int | Literal["auto"] | Limit) -> None:
        """Change the limit now. Raised, it lets in those who wait; lowered, those inside are left alone."""
        self._limiter = make_limit(limit)
        self._adopt(self._limiter.value, "resized")
        self._watch()

    def _watch(self) -> None:
        # the first look opens a window; a limit that never moves needs none
        self.began_s = -math.inf
        self.window_at_s = math.inf if math.isinf(self._limiter.window_s) else -math.inf
        self._growing = self._limiter if isinstance(self._limiter, GrowingLimit) else None
        self.full_at_s = math.inf if self._growing is None else -math.inf

    @property
    def scale(self) -> float:
        """What the limit is multiplied with, more than 0 and at most 1: the loop's own gate sets it."""
        return self.factor

    @scale.setter
    def scale(self, value: float) -> None:
        _check("scale", value, 0 < value <= 1, "more than 0, at most 1")
        self.factor = value
        self.update_bound()

    def close(self) -> None:
        """Refuse from now on, those who wait as well; those inside leave as ever."""
        self.shut()

    def end_window(self, now_s: float) -> None:
        """Hand what was measured to the limit, and take its number."""
        if self.began_s == -math.inf:
            self._open_window(now_s, -math.inf)
        elif len(self.rtts_s) < LEAST_SAMPLES:
            self.window_at_s = now_s + self._limiter.window_s / 4
        else:
            reason = self._limiter.reason
            value = self._limiter.update(self._window(now_s))
            # what an older limit let in says nothing of this one
            self._open_window(now_s, self.epoch_s if value == self.limit else self.began_s)
            if value != self.limit or self._limiter.reason != reason:
                self._adopt(value, self._limiter.reason)

    def on_full(self, now_s: float) -> None:
        """Ask the limit for more before a call that found no permit free is queued or refused."""
        self.was_full = True
        if self._growing is None:
            return
        self.full_at_s = now_s + self._growing.window_s / FULL_LOOKS
        window = self._window(now_s)
        value = self._growing.when_full(window)
        if value != self.limit:
            self._adopt(value, self._growing.reason)

    def _window(self, now_s: float) -> Window:
        return Window(
            duration_s=now_s - self.began_s,
            ended_s=now_s,
            rtts_s=self.rtts_s,
            begins_s=self.begins_s,
            completed=self._finished() - self._finished_before,
            dropped=self.dropped,
            most_inflight=self.most_inflight,
            inflight=self.inflight,
            was_full=self.was_full,
        )

    def _open_window(self, now_s: float, epoch_s: float) -> None:
        self.epoch_s, self.began_s = epoch_s, now_s
        self.window_at_s = now_s + self._limiter.window_s
        self.rtts_s, self.begins_s = [], []
        self._finished_before = self._finished()
        self.dropped, self.most_inflight, self.was_full = 0, self.inflight, False

    def _adopt(self, value: int, reason: str) -> None:
        if value != self.limit:
            self._moved_at_s = 0.0 if self.loop is None else self.clock()
        self.limit, self._reason = value, reason
        self.update_bound()

    def _finished(self) -> int:
        return self.admitted - (self.inflight - self.granted)

    # --- what is told ---

    def statistics(self) -> GateStatistics:
        """The gate as it is now."""
        return GateStatistics(
            name=self.name,
            limit=self.limit,
            scale=self.factor,
            inflight=self.inflight,
            queued=self.queued(),
            oldest_wait_s=self.oldest_wait_s(),
            admitted=self.admitted,
            finished=self._finished(),
            waited=self.waited,
            wait=taken(self.waits),
            service=taken(self.services),
            sheds=dict(zip(REASONS, self.sheds, strict=True)),
            limit_reason=self._reason,
            limit_moved_at_s=self._moved_at_s,
            streams=len(self.live_streams),
        )


def _check(name: str, value: object, is_good: bool, allowed: str) -> None:
    if not is_good:
        raise ValueError(f"{name} = {value!r}: allowed is {allowed}")
