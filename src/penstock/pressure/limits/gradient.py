"""The limit that needs no number: it follows latency against its floor, window by window. "auto" is this one.

Envoy's gradient over windows, with its known faults taken out: the floor comes from live traffic (nothing is ever
pinned to measure it), short probes look for it, it is given up when the service has really become slower, and growth
that brings no throughput is vetoed.
"""

from __future__ import annotations

from math import ceil, sqrt
from typing import TYPE_CHECKING

from penstock.pressure.limits.correlation import Correlation
from penstock.pressure.limits.floor import Floor
from penstock.pressure.limits.moving import Moving
from penstock.pressure.limits.probe import Probe
from penstock.pressure.limits.reading import reading
from penstock.pressure.limits.window import LEAST_SAMPLES

if TYPE_CHECKING:
    from penstock.pressure.limits.reading import Reading
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
# Latency this near a floor that a probe has met is that floor.
CLOSE = 1.1


class Gradient(Moving):
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
        self._floor = Floor(memory_s)
        self._probe = Probe(memory_s)
        self._correlation = Correlation()
        self._pending: Window | None = None
        self._first, self._starts, self._looks_up = True, True, False
        self._now_s = self._floor_before_s = 0.0

    @property
    def floor_s(self) -> float:
        """What latency is taken to be without a queue, in seconds; 0.0 before the first window."""
        return self._floor.floor_s

    def update(self, window: Window) -> int:
        """Move the limit by what the window shows; windows of few samples are put together first."""
        window = self._pending.joined(window) if self._pending else window
        if not self._tells(window):
            self._pending = window
            return self.value
        self._pending = None
        if self._first:
            self._first = False  # cold caches, first connections
        else:
            self._take_in(window, reading(window))
        return self.value

    def _tells(self, window: Window) -> bool:
        """Whether everyone has answered once since the limit last moved, or enough to see that latency is beyond all.

        A limit that moves sooner than its last move can be seen swings to and fro.
        """
        count, rtt_s = len(window.rtts_s), window.median_s
        if count < LEAST_SAMPLES:
            return False
        return (count >= min(self.value, ROUND) and window.duration_s >= rtt_s * LATENCIES) or self._beyond(rtt_s)

    def _beyond(self, rtt_s: float) -> bool:
        """Whether latency is so far above its floor that the gradient has no more to say than its least."""
        return 0 < self.floor_s * self._tolerance < rtt_s * LEAST_GRADIENT

    def _take_in(self, window: Window, now: Reading) -> None:
        self._now_s += window.duration_s
        if self._floor.add(window.duration_s, now):
            self._correlation.clear()
        if self._probe.waits(now.inflight, self.value):
            return
        if window.was_full:
            self._correlation.add(now.inflight, now.throughput, now.rtt.middle_s)
        else:
            self._probe.is_first = False  # with a permit free, what latency is has been seen
        ended = window.completed + window.dropped
        if window.dropped * 2 >= ended > 0:
            wanted = max(self._least, self._exact * LEAST_GRADIENT)
            self._set(wanted, f"{window.dropped} of {ended} calls were given up")
        elif self._probe.base is not None:
            self._judge(now, self._probe.base, window.was_full)
        else:
            self._move(now, window.was_full)

    def _move(self, now: Reading, was_full: bool) -> None:
        rtt_s = now.felt_s if was_full else now.rtt.middle_s
        wanted, times = self._wanted(self._exact, rtt_s), rtt_s / self.floor_s
        # from its initial value it doubles, until it meets a queue for the first time
        self._starts = self._starts and times < NEAR
        if was_full and self._should_probe(wanted, times):
            self._probe.begin(now, self._exact)
            self._floor_before_s = self.floor_s
            self._look(self._beyond(rtt_s))
        elif wanted <= self._exact:
            self._set(wanted, f"latency {times:.1f}x its floor")
        elif now.inflight < self._exact * USED:
            return
        elif was_full and (veto := self._correlation.veto()):
            self.reason = f"growth vetoed: {veto}"
        else:
            wanted = max(wanted, min(self._most, self._exact * 2)) if self._starts and was_full else wanted
            self._set(wanted, f"latency near its floor ({times:.2f}x)")

    def _wanted(self, exact: float, rtt_s: float) -> float:
        gradient = max(LEAST_GRADIENT, min(MOST_GRADIENT, self._tolerance * self.floor_s / rtt_s))
        return max(self._least, min(self._most, exact * gradient + sqrt(exact)))

    def _rest(self, exact: float, rtt_s: float) -> float:
        """Where the formula comes to rest while latency is in proportion to the limit, as behind a queue it is."""
        for _ in range(REST_STEPS):
            wanted = self._wanted(exact, rtt_s)
            rtt_s *= wanted / exact
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

    def _judge(self, now: Reading, base: Reading, was_full: bool) -> None:
        balance = now.balance(base)
        if self._looks_up:
            self._judge_above(now, balance)
            return
        bottom = balance >= 0 or not was_full or self.value <= self._least
        known = self._probe.knows(self._now_s) and now.rtt.middle_s < self.floor_s * CLOSE
        if not bottom and not known:
            self._probe.step(now)
            self._look(up=False)
            return
        exact, rtt_s = self._probe.start
        taught = self.floor_s * CLOSE < self._floor_before_s
        self._probe.end(self._now_s, taught=taught, bottom=bottom)
        self._set(
            min(exact, self._rest(exact, rtt_s)) if taught else exact,
            f"latency comes down to {self.floor_s * 1e3:.1f} ms without a queue",
        )

    def _judge_above(self, now: Reading, balance: float) -> None:
        if balance > 0:
            self._floor.restart(now)
            self._correlation.clear()
            self.reason = f"the service has become slower: its floor is {self.floor_s * 1e3:.1f} ms"
        else:
            self._set(self._probe.start[0], "more in flight brings only more latency")
        self._probe.end(self._now_s, taught=balance > 0, bottom=False)

    def __repr__(self) -> str:
        return f"<Gradient {self.value}: {self.reason}>"
