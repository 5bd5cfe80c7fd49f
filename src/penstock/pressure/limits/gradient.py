"""The limit that needs no number: it follows latency against its floor, window by window. "auto" is this one.

Envoy's gradient over windows, with its known faults taken out: the floor comes from live traffic (nothing is ever
pinned to measure it), short probes look for it, it is given up when the service has really become slower, and growth
that brings no throughput is vetoed.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil, inf, sqrt
from typing import TYPE_CHECKING

from penstock.pressure.limits.correlation import Correlation
from penstock.pressure.limits.floor import Floors
from penstock.pressure.limits.probe import Probe
from penstock.pressure.limits.reading import HIDDEN, readings, risen_from
from penstock.pressure.limits.window import LEAST_SAMPLES, MovingLimit

if TYPE_CHECKING:
    from penstock.pressure.limits.reading import Readings
    from penstock.pressure.limits.window import Window

__all__ = ["Gradient"]

LEAST_GRADIENT, MOST_GRADIENT = 0.5, 2.0
# A limit of which less than this share was in use does not grow.
USED = 0.75
# Latency this near its floor needs no probe; a limit that would shrink below this share of itself is not at rest.
NEAR, STEADY = 1.2, 0.95
REST_STEPS = 20
# A window is one round, in which everyone in flight has answered once; of more than so many samples it need not be.
ROUND = 100
LATENCIES = 2.0
# After so many, calls that are still not over are held by something else.
LONG = 5.0
# Before the first answers a limit grows up to so many permits, or to its initial value.
MOST_BLIND = 100
# So few answers may stop that, and tell nothing else.
LEAST_BLIND = 8
# Latency this near a floor that a probe has met is that floor.
CLOSE = 1.1
# A floor that has fallen so much is another service's, of which past windows say nothing.
ANOTHER = 2.0


class Gradient(MovingLimit):
    """The windowed gradient: `L = clamp(L * g + sqrt(L))` with `g = clamp(floor * tolerance / median, 0.5, 2)`.

    `initial`, `least` and `most` are counts of permits; `window_s` is how long a window is, `memory_s` for how long
    the lowest median of latency is the floor, both in seconds; `tolerance` is how far above its floor latency may be
    before the limit shrinks. Raises ValueError.
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
        self._probe = Probe(memory_s)
        self._correlation = Correlation()
        self._pending: Window | None = None
        self._first, self._starts, self._looks_up = True, True, False
        self._met_queue = False
        self._blind = max(initial, MOST_BLIND)
        self._now_s = 0.0
        self._grown_at_s = self._cut_at_s = -inf
        self._floors_before_s = 0.0, 0.0

    @property
    def floor_s(self) -> float:
        """What latency is taken to be without a queue, in seconds; 0.0 before the first window."""
        return self._floor.floor_s

    def update(self, window: Window) -> int:
        """Move the limit by what the window shows; windows of few samples are put together first."""
        window = window.since(self._cut_at_s)
        window = self._pending.joined(window) if self._pending else window
        if not self._tells(window):
            self._pending = window
            return self.value
        self._pending = None
        if self._first:
            self._begin(window)
        else:
            self._take_in(window, readings(window))
        return self.value

    def _begin(self, window: Window) -> None:
        """Take the first floor. Where the service was empty at first and has a queue now, it is that of the beginning.

        A floor of cold caches and first connections is too high, and the next window lowers it.
        """
        self._first = False
        early, now = risen_from(window), readings(window)
        self._floor.add(window.duration_s, readings(replace(window, rtts_s=early)) if early else now)
        if early or window.held_s > HIDDEN * window.mean_s:
            self._starts, self._met_queue = False, True
            times = self._floor.times(max(window.median_s, window.held_s), max(window.mean_s, window.held_s))
            self._probe.end(self._now_s, taught=True, bottom=False)
            # the queue that was let in would speak for itself for long
            self._cut_at_s = window.ended_s or -inf
            self._set(min(self._exact, self._rest(self._exact, times)), f"latency rises to {times:.1f}x its floor")

    def when_full(self, window: Window) -> int:
        """Double the limit where calls that began under it have met no queue, or where none has ended yet."""
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
        """Whether enough calls that began since the last growth have ended, without a queue."""
        if not self.floor_s or len(window.rtts_s) < LEAST_SAMPLES or window.held_s > HIDDEN * window.mean_s:
            return False
        # a shorter window will soon tell more
        is_slow = window.duration_s >= self.window_s
        return is_slow and not self._correlation.veto() and self._floor.times(window.median_s, window.mean_s) < NEAR

    def _tells(self, window: Window) -> bool:
        """Whether everyone has answered once since the limit last moved, or enough to see that latency is beyond all.

        A limit that moves sooner than its last move can be seen swings to and fro.
        """
        count = len(window.rtts_s)
        if count < LEAST_SAMPLES:
            return False
        # permits tell of calls that are not over yet
        rtt_s = max(window.median_s, window.mean_s, window.held_s)
        enough = min(window.duration_s, window.ended_s - self._grown_at_s) >= rtt_s * LATENCIES
        if self._first:
            hidden = window.held_s > HIDDEN * window.mean_s
            return bool(risen_from(window)) or (window.duration_s >= rtt_s * LONG if hidden else enough)
        beyond = self._beyond(self._floor.times(window.median_s, window.mean_s))
        return beyond or (enough and count >= min(self.value, ROUND))

    def _beyond(self, times: float) -> bool:
        """Whether latency is so far above its floor that the gradient has no more to say than its least."""
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
            self._probe.is_first = False  # with a permit free, what latency is has been seen
        ended = window.completed + window.dropped
        if window.dropped * 2 >= ended > 0:
            wanted = max(self._least, self._exact * LEAST_GRADIENT)
            self._set(wanted, f"{window.dropped} of {ended} calls were given up")
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
        # from its initial value it doubles, until it meets a queue for the first time
        self._starts = self._starts and times < NEAR
        if was_full == (times >= NEAR):
            self._met_queue = was_full
        if was_full and self._should_probe(wanted, times):
            # full before it had any floor: without a queue seen, more in flight tells whether there is one
            up = self._beyond(times) or (self._probe.is_first and not self._met_queue)
            self._probe.begin(now, self._exact)
            self._floors_before_s = self._floor.both_s
            self._look(up)
        elif wanted <= self._exact:
            self._set(wanted, f"latency {times:.1f}x its floor")
        elif window.most_inflight < self._exact * USED:
            return
        elif was_full and (veto := self._correlation.veto()):
            self.reason = f"growth vetoed: {veto}"
        else:
            wanted = max(wanted, min(self._most, self._exact * 2)) if self._starts and was_full else wanted
            self._set(wanted, f"latency near its floor ({times:.2f}x)")

    def _wanted(self, exact: float, times: float) -> float:
        gradient = max(LEAST_GRADIENT, min(MOST_GRADIENT, self._tolerance / times))
        return max(self._least, min(self._most, exact * gradient + sqrt(exact)))

    def _rest(self, exact: float, times: float) -> float:
        """Where the formula comes to rest while latency is in proportion to the limit, as behind a queue it is."""
        for _ in range(REST_STEPS):
            wanted = self._wanted(exact, times)
            times *= wanted / exact
            exact = wanted
        return exact

    def _should_probe(self, wanted: float, times: float) -> bool:
        """A limit that has come to rest above its floor, or that was full before it had any: look before it grows."""
        due = self._probe.due(self._now_s) and self._exact > self._least
        return due and (self._probe.is_first or (times > NEAR and wanted > self._exact * STEADY))

    def _look(self, up: bool) -> None:
        """Latency so far above its floor that the gradient has no more say: does it come down at all? Look above.

        Else whether there is a lower floor: look below.
        """
        self._looks_up = up
        probed = min(self._most, self._exact * 2) if up else max(self._least, ceil(self._exact / 2))
        self._set(probed, f"{'above' if up else 'below'} itself for a moment, to see what latency is without a queue")

    def _judge(self, now: Readings, base: Readings, was_full: bool) -> None:
        balance = now.balance(base)
        if self._looks_up:
            self._judge_above(now, balance)
            return
        bottom = balance >= 0 or not was_full or self.value <= self._least
        known = self._probe.knows(self._now_s) and self._times(now, was_full=False) < CLOSE
        if not bottom and not known:
            self._probe.step(now)
            self._look(up=False)
            return
        taught = self._floor.fell(self._floors_before_s) > CLOSE
        self._probe.end(self._now_s, taught=taught, bottom=bottom)
        self._set(
            self._taught() if taught else self._probe.start,
            f"latency comes down to {self.floor_s * 1e3:.1f} ms without a queue",
        )

    def _taught(self) -> float:
        """Where the limit rests that the probe started from, by the floor that the probe has found."""
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
            # so there is a queue, and below it a floor
            self._probe.is_first = not self._met_queue
            self._met_queue = True
        self._probe.end(self._now_s, taught=balance > 0, bottom=False)

    def __repr__(self) -> str:
        return f"<Gradient {self.value}: {self.reason}>"
