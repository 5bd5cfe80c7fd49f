"""The gate: a bound on the calls in flight, with a queue that is bounded in length and in time.

`penstock._core.sync.gate` does the work. This module has the public class, its exceptions, the measurement windows of a
moving limit, and the statistics. It knows no server and no protocol.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, cast
from weakref import WeakSet

from penstock.errors import Overloaded
from penstock.expiry import expiry
from penstock.pressure.admission.core import REASONS, Entry, GateCore
from penstock.pressure.admission.registry import register, registered
from penstock.pressure.limits import LEAST_SAMPLES, GrowingLimit, Limit, Window, make_limit
from penstock.pressure.renames import refuse_former_names
from penstock.times import Histogram, Times, taken

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Hashable, Mapping

__all__ = ["Entry", "Gate", "GateStatistics", "GateStream", "Priority", "gates", "statistics"]

P = ParamSpec("P")
T = TypeVar("T")

# The longest wait by default, in seconds; at most half of the deadline.
MAX_WAIT_S = 0.05
STREAMS = REASONS.index("streams")
# How often in a window a full gate asks its limit for more permits.
FULL_LOOKS = 5
_numbers = itertools.count(1)


class Priority(IntEnum):
    """The classes of entries: each is served before the classes below it, and shed after them."""

    CRITICAL = 0
    HIGH = 1
    NORMAL = 2
    LOW = 3


@dataclass(frozen=True, slots=True)
class GateStatistics:
    """A gate at one moment: gauges of now; counts and times since it was made. All times are in seconds."""

    name: str
    # the number of permits, before `scale` multiplies it
    limit: int
    scale: float
    # permits in use; entries that wait, and how long the oldest has waited
    inflight: int
    queued: int
    oldest_wait_s: float
    # entries that got a permit, that gave it back, and that waited before they got it
    admitted: int
    finished: int
    waited: int
    # the waits of entries that waited and got a permit; the time with a permit of those that were measured
    wait: Times = field(default_factory=Times)
    service: Times = field(default_factory=Times)
    # reason -> number of sheds
    sheds: Mapping[str, int] = field(default_factory=dict)
    # the reason and the time of the limit's last move, on the loop's clock (0 if it never moved)
    limit_reason: str = ""
    limit_moved_at_s: float = 0.0
    # streams, which have no permit any more
    streams: int = 0

    if not TYPE_CHECKING:
        __getattr__ = refuse_former_names({"entered": "admitted", "left": "finished"})


class Gate(GateCore):
    """A bound on calls in flight: further calls wait for a bounded time, and the rest are shed at once.

    `limit` is a number of permits, "auto", or an object with `update()` as in `penstock.pressure.limits`. `initial` is
    the number that "auto" starts from (10); until the first calls have ended it admits up to that number, and at least
    100. `max_wait_s` is the longest wait in seconds (default: 0.05, or half of the deadline if that is less; 0 for no
    wait, `math.inf` for no bound). `deadline_s` are the seconds in which a call must finish. `reserve` is the number of
    permits beyond the limit for CRITICAL entries alone. `max_queued` is the longest queue. `max_streams` bounds the
    entries that have become streams, None for no bound. A shed raises `penstock.errors.Overloaded`.

    A gate belongs to the event loop of its first use. It is not thread-safe. Raises ValueError for a bad argument.
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
        # weakly: streams of a closed loop do not count
        self.live_streams: WeakSet[GateStream] = WeakSet()
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
        """Wait for a permit, with the arguments of `entry`, `priority` among them; `leave()` gives it back.

        Raises Overloaded when the entry is shed.
        """
        await self.through(priority, key, arrived_s, deadline_s)

    def guard(self, fn: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """Decorate an async function: each call needs a permit. A call that is shed raises Overloaded."""

        @functools.wraps(fn)
        async def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            async with self:
                return await fn(*args, **kwargs)

        return guarded

    # --- streams ---

    def stream(self, entry: Entry, *, holds_drain: bool = False) -> GateStream | None:
        """Turn an entry with a permit into a stream, and return it; None if there are `max_streams`.

        The permit is given back, without a measurement: a stream's time says nothing of the service. The stream's
        `leave()` takes the place of the entry's. `holds_drain`: a drain waits for the stream as for an entry; it waits
        for other streams only as long as their connections are busy. Raises RuntimeError for an entry without a permit.
        """
        if not entry.is_inside:
            raise RuntimeError("this entry has no permit: it cannot become a stream")
        if self.max_streams is not None and len(self.live_streams) >= self.max_streams:
            return None
        entry.is_begun = entry.is_inside = False
        stream = GateStream(self, holds_drain=holds_drain)
        self.leave()
        return stream

    def shed_stream(self) -> Overloaded:
        """Count the shed of a stream, as there are `max_streams`; return its exception."""
        self.sheds[STREAMS] += 1
        self.notify(REASONS[STREAMS])
        return Overloaded(None, REASONS[STREAMS], 0, self.max_streams or 0, None, 0.0, self.name)

    # --- the limit ---

    def resize(self, limit: int | Literal["auto"] | Limit) -> None:
        """Change the limit now. A higher one admits waiters; a lower one leaves calls in flight alone."""
        self._limiter = make_limit(limit)
        self._adopt(self._limiter.value, "resized")
        self._watch()

    def _watch(self) -> None:
        # the first call opens a window; a limit that never moves needs none
        self.began_s = -math.inf
        self.window_at_s = math.inf if math.isinf(self._limiter.window_s) else -math.inf
        self._growing = self._limiter if isinstance(self._limiter, GrowingLimit) else None
        self.full_at_s = math.inf if self._growing is None else -math.inf

    @property
    def scale(self) -> float:
        """The factor of the limit, more than 0 and at most 1. The loop's own gate sets it."""
        return self.factor

    @scale.setter
    def scale(self, value: float) -> None:
        _check("scale", value, 0 < value <= 1, "more than 0, at most 1")
        self.factor = value
        self.update_bound()

    def close(self) -> None:
        """Shed every call from now on, and those that wait. Calls in flight are left alone."""
        self.shut()

    def end_window(self, now_s: float) -> None:
        """Give the limit the window's measurements, and adopt its number."""
        if self.began_s == -math.inf:
            self._open_window(now_s, -math.inf)
        elif len(self.rtts_s) < LEAST_SAMPLES:
            self.window_at_s = now_s + self._limiter.window_s / 4
        else:
            reason = self._limiter.reason
            value = self._limiter.update(self._window(now_s))
            # calls that an older limit admitted say nothing of this one
            self._open_window(now_s, self.epoch_s if value == self.limit else self.began_s)
            if value != self.limit or self._limiter.reason != reason:
                self._adopt(value, self._limiter.reason)

    def on_full(self, now_s: float) -> None:
        """Ask the limit for more permits before a call is queued or shed."""
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

    # --- statistics ---

    def statistics(self) -> GateStatistics:
        """Return the gate's gauges, counts and times."""
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


class GateStream:
    """A response that goes on without a permit. The gate counts it until `leave()`, or until nothing refers to it.

    `holds_drain`: a drain waits for it as for an entry.
    """

    __slots__ = ("__weakref__", "_gate", "holds_drain")

    def __init__(self, gate: Gate, *, holds_drain: bool = False) -> None:
        self._gate, self.holds_drain = gate, holds_drain
        gate.live_streams.add(self)

    def leave(self) -> None:
        """End the stream."""
        self._gate.live_streams.discard(self)


def gates() -> list[Gate]:
    """Return the live gates of this process, by name. Callable from any thread."""
    return cast("list[Gate]", registered())


def statistics() -> dict[str, GateStatistics]:
    """Return each gate's statistics by its name; of several with one name, the second is "name (2)"."""
    found: dict[str, GateStatistics] = {}
    for gate in gates():
        name, count = gate.name, 1
        while name in found:
            count += 1
            name = f"{gate.name} ({count})"
        found[name] = gate.statistics()
    return found


def _check(name: str, value: object, is_good: bool, allowed: str) -> None:
    if not is_good:
        raise ValueError(f"{name} = {value!r}: allowed is {allowed}")
