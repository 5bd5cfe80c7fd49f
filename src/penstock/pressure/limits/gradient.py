"""`Gradient`: a limit that follows the ratio of the floor latency to the present one. "auto" is this limit.

It is Envoy's gradient controller without its known faults. The floor comes from live traffic, and short probes look for
it by halving the limit. The floor is reset when the service has really become slower. Growth that brings no throughput
is vetoed.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil, inf, sqrt
from typing import TYPE_CHECKING

from penstock.pressure.limits.correlation import Correlation
from penstock.pressure.limits.floor import Floors
from penstock.pressure.limits.probe import LimitProbe
from penstock.pressure.limits.reading import HIDDEN, readings, risen_from
from penstock.pressure.limits.window import LEAST_SAMPLES, MovingLimit

if TYPE_CHECKING:
    from penstock.pressure.limits.reading import Readings
    from penstock.pressure.limits.window import Window

__all__ = ["Gradient"]

LEAST_GRADIENT, MOST_GRADIENT = 0.5, 2.0
# A limit does not grow while less than this share of it is in use.
USED = 0.75
# Latency within NEAR times its floor needs no probe. A limit about to shrink below STEADY of itself is not at rest.
NEAR, STEADY = 1.2, 0.95
# Iterations of the formula until it has converged.
REST_STEPS = 20
# A window lasts until each call in flight has ended once, or until it has so many samples.
ROUND = 100
# A window lasts at least so many latencies.
LATENCIES = 2.0
# A first window of so many latencies is judged although its calls seem to be held by something else.
LONG = 5.0
# Before the first answers a limit grows up to so many permits, or to its initial value.
MOST_BLIND = 100
# So few answers are enough to stop that growth, and for nothing else.
LEAST_BLIND = 8
# Latency within this factor of a floor that a probe has confirmed is that floor.
CLOSE = 1.1
# After a fall of the floor by this factor, earlier windows say nothing of the service.
ANOTHER = 2.0


class Gradient(MovingLimit):
    """The windowed gradient: `L = clamp(L * g + sqrt(L))` with `g = clamp(floor * tolerance / median, 0.5, 2)`.

    `initial`, `least` and `most` are counts of permits, in ascending order from 1. `tolerance`, above 1, is the
    multiple of its floor that latency may reach before the limit shrinks. `window_s` is the length of a window and
    `memory_s` the time for which a lowest latency is remembered as the floor, both in seconds. Raises ValueError for
    values outside these ranges.
    """

    def __init__(
        self,
        initial: int = 10,
        *,
        least: int = 1,
        most: int = 1000,
        tolerance: float = 1.25,
        window_s: float = 0.1,
        memory_s: float = 30.0,
    ) -> None:
        super().__init__(initial, least, most, window_s)
        if not (tolerance > 1 and window_s > 0 and memory_s > 0):
            raise ValueError(f"tolerance = {tolerance}: above 1; window_s = {window_s}, memory_s = {memory_s}: above 0")
        self._tolerance = tolerance
        self._floor = Floors(memory_s)
        self._probe = LimitProbe(memory_s)
        self._correlation = Correlation()
        self._pending: Window | None = None
        self._first, self._starts, self._probes_up = True, True, False
        self._met_queue = False
        self._blind = max(initial, MOST_BLIND)
        self._now_s = 0.0
        self._grown_at_s = self._cut_at_s = -inf
        self._floors_before_s = 0.0, 0.0

    @property
    def floor_s(self) -> float:
        """The estimated latency without a queue, in seconds; 0.0 before the first window."""
        return self._floor.floor_s

    def update(self, window: Window) -> int:
        """Move the limit as the window shows and return it. Windows with too few samples are joined first."""
        window = window.since(self._cut_at_s)
        window = self._pending.joined(window) if self._pending else window
        if not self._is_conclusive(window):
            self._pending = window
            return self.value
        self._pending = None
        if self._first:
            self._begin(window)
        else:
            self._take_in(window, readings(window))
        return self.value

    def _begin(self, window: Window) -> None:
        """Take the first floor: from the earliest calls if the service was empty then and has a queue now.

        Cold caches and new connections make the first floor too high; the next window lowers it.
        """
        self._first = False
        early, now = risen_from(window), readings(window)
        self._floor.add(window.duration_s, readings(replace(window, rtts_s=early)) if early else now)
        if early or window.held_s > HIDDEN * window.mean_s:
            self._starts, self._met_queue = False, True
            times = self._floor.times(max(window.median_s, window.held_s), max(window.mean_s, window.held_s))
            self._probe.end(self._now_s, found=True, bottom=False)
            # calls already in the queue would raise the measured latency for long
            self._cut_at_s = window.ended_s or -inf
            self._set(min(self._exact, self._rest(self._exact, times)), f"latency rises to {times:.1f}x its floor")

    def when_full(self, window: Window) -> int:
        """Double the limit if calls that began under it met no queue, or if no call has ended yet. Return the limit."""
        if self._met_queue or self._probe.base is not None:
            return self.value
        window = self._pending.joined(window) if self._pending else window
        if risen_from(window, LEAST_BLIND):
            return self.value
        if self._met_no_queue(window.since(self._grown_at_s)):
            self._grown_at_s = window.ended_s
            self._set(self._exact * 2, "no queue met")
        elif not self.floor_s and self._exact < self._blind:
            self._set(min(self._exact * 2, self._blind), "no answer yet")
        return self.value

    def _met_no_queue(self, window: Window) -> bool:
        """Return whether enough calls that began since the last growth have ended without a queue."""
        if not self.floor_s or len(window.rtts_s) < LEAST_SAMPLES or window.held_s > HIDDEN * window.mean_s:
            return False
        # a window that is still short is joined with the next one
        is_slow = window.duration_s >= self.window_s
        return is_slow and not self._correlation.veto() and self._floor.times(window.median_s, window.mean_s) < NEAR

    def _is_conclusive(self, window: Window) -> bool:
        """Return whether the window shows the effect of the last move, or latency far above its floor.

        The effect shows once each call in flight has ended. A limit that moves sooner oscillates.
        """
        count = len(window.rtts_s)
        if count < LEAST_SAMPLES:
            return False
        # the time for which permits are held includes calls that have not ended
        rtt_s = max(window.median_s, window.mean_s, window.held_s)
        enough = min(window.duration_s, window.ended_s - self._grown_at_s) >= rtt_s * LATENCIES
        if self._first:
            hidden = window.held_s > HIDDEN * window.mean_s
            return bool(risen_from(window)) or (window.duration_s >= rtt_s * LONG if hidden else enough)
        beyond = self._beyond(self._floor.times(window.median_s, window.mean_s))
        return beyond or (enough and count >= min(self.value, ROUND))

    def _beyond(self, times: float) -> bool:
        """Return whether latency is so far above its floor that the gradient is at its lower bound."""
        return times * LEAST_GRADIENT > self._tolerance

    def _take_in(self, window: Window, now: Readings) -> None:
        self._now_s += window.duration_s
        before_s = self._floor.both_s
        if self._floor.add(window.duration_s, now) or self._floor.fell(before_s) > ANOTHER:
            self._correlation.clear()
        if self._probe.waits(window.most_inflight, self.value):
            return
        if window.was_full:
            self._correlation.add(window.most_inflight, window.throughput, now.by_median.rtt.middle_s)
        else:
            self._probe.is_first = False  # latency with a free permit has been measured
        ended = window.completed + window.dropped
        if window.dropped * 2 >= ended > 0:
            wanted = max(self._least, self._exact * LEAST_GRADIENT)
            self._set(wanted, f"{window.dropped} of {ended} calls were dropped")
        elif self._probe.base is not None:
            self._judge(now, self._probe.base, window.was_full)
        else:
            self._move(now, window)

    def _times(self, now: Readings, was_full: bool) -> float:
        if was_full:
            return self._floor.times(now.by_median.felt_s, now.by_mean.felt_s)
        return self._floor.times(now.by_median.rtt.middle_s, now.by_mean.rtt.middle_s)

    def _move(self, now: Readings, window: Window) -> None:
        was_full, times = window.was_full, self._times(now, window.was_full)
        wanted = self._wanted(self._exact, times)
        # the limit doubles from its initial value until it first meets a queue
        self._starts = self._starts and times < NEAR
        if was_full == (times >= NEAR):
            self._met_queue = was_full
        if was_full and self._should_probe(wanted, times):
            self._begin_probe(now, times)
        elif wanted <= self._exact:
            self._set(wanted, f"latency {times:.1f}x its floor")
        elif window.most_inflight >= self._exact * USED:
            self._grow(wanted, times, was_full)

    def _begin_probe(self, now: Readings, times: float) -> None:
        # full before the floor was known and no queue seen: only a higher limit shows whether there is one
        up = self._beyond(times) or (self._probe.is_first and not self._met_queue)
        self._probe.begin(now, self._exact)
        self._floors_before_s = self._floor.both_s
        self._probe_limit(up)

    def _grow(self, wanted: float, times: float, was_full: bool) -> None:
        """Grow to `wanted`, or to twice the limit while it starts, unless past windows veto growth."""
        if was_full and (veto := self._correlation.veto()):
            self.reason = f"growth vetoed: {veto}"
            return
        if self._starts and was_full:
            wanted = max(wanted, min(self._most, self._exact * 2))
        self._set(wanted, f"latency near its floor ({times:.2f}x)")

    def _wanted(self, exact: float, times: float) -> float:
        gradient = max(LEAST_GRADIENT, min(MOST_GRADIENT, self._tolerance / times))
        return max(self._least, min(self._most, exact * gradient + sqrt(exact)))

    def _rest(self, exact: float, times: float) -> float:
        """Return where the formula converges if latency is proportional to the limit, as behind a queue."""
        for _ in range(REST_STEPS):
            wanted = self._wanted(exact, times)
            times *= wanted / exact
            exact = wanted
        return exact

    def _should_probe(self, wanted: float, times: float) -> bool:
        """Return whether to probe before growing: at rest above the floor, or full before any floor was known."""
        due = self._probe.due(self._now_s) and self._exact > self._least
        return due and (self._probe.is_first or (times > NEAR and wanted > self._exact * STEADY))

    def _probe_limit(self, up: bool) -> None:
        """Set the limit to be probed: `up` doubles it, otherwise it is halved to look for a lower floor.

        The limit is doubled where latency is so far above its floor that there may be no queue at all.
        """
        self._probes_up = up
        probed = min(self._most, self._exact * 2) if up else max(self._least, ceil(self._exact / 2))
        self._set(probed, f"probing {'above' if up else 'below'} the limit for the latency without a queue")

    def _judge(self, now: Readings, base: Readings, was_full: bool) -> None:
        balance = now.balance(base)
        if self._probes_up:
            self._judge_above(now, balance)
            return
        bottom = balance >= 0 or not was_full or self.value <= self._least
        known = self._probe.knows(self._now_s) and self._times(now, was_full=False) < CLOSE
        if not bottom and not known:
            self._probe.step(now)
            self._probe_limit(up=False)
            return
        found = self._floor.fell(self._floors_before_s) > CLOSE
        self._probe.end(self._now_s, found=found, bottom=bottom)
        self._set(
            self._limit_by_found_floor() if found else self._probe.start,
            f"latency comes down to {self.floor_s * 1e3:.1f} ms without a queue",
        )

    def _limit_by_found_floor(self) -> float:
        """Return where the limit before the probe converges with the floor that the probe has found."""
        exact, base = self._probe.start, self._probe.start_base
        assert base is not None
        times = self._floor.times(base.by_median.full_s, base.by_mean.full_s)
        return min(exact, self._rest(exact, times))

    def _judge_above(self, now: Readings, balance: float) -> None:
        if balance > 0:
            self._floor.restart(now)
            self._met_queue = False
            self._correlation.clear()
            self.reason = f"more in flight brings more throughput: the floor is {self.floor_s * 1e3:.1f} ms"
        else:
            self._set(self._probe.start, "more in flight brings only more latency")
            # there is a queue, so a lower limit may find a lower floor
            self._probe.is_first = not self._met_queue
            self._met_queue = True
        self._probe.end(self._now_s, found=balance > 0, bottom=False)

    def __repr__(self) -> str:
        return f"<Gradient {self.value}: {self.reason}>"
