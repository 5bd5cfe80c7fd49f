"""A simulation of a service under load in virtual time: Poisson arrivals, a gate with a limit, and all outcomes.

The load is an open loop: arrivals do not wait for answers. A call is good if its answer comes within the client's
deadline; a late answer costs the service as much. Runs are seeded and reproducible, and need no event loop.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from math import inf
from random import Random

from penstock.pressure.admission.gate import FULL_LOOKS
from penstock.pressure.limits import LEAST_SAMPLES, MOST_SAMPLES, GrowingLimit, Limit, Window

__all__ = ["Call", "CpuService", "IoService", "Phase", "Report", "simulate"]


@dataclass(frozen=True, slots=True)
class Phase:
    """A time of `duration_s` with `rate` arrivals a second and a service `capacity` of so many a second."""

    duration_s: float
    rate: float
    capacity: float


@dataclass(slots=True)
class Call:
    arrived_s: float
    phase: int
    began_s: float = 0.0
    ended_s: float = inf
    steps: int = 0
    lag_s: float = 0.0
    refused: bool = False


class Clock:
    """A virtual clock that jumps to the next due event."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._number = count()

    def at(self, time_s: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._due, (time_s, next(self._number), act))

    def run(self) -> None:
        while self._due:
            self.now_s, _, act = heapq.heappop(self._due)
            act()


class IoService:
    """A backend with `slots` connections, each busy for `service_s(now)` seconds a call, and a queue before them."""

    def __init__(self, slots: int, service_s: Callable[[float], float]) -> None:
        self._free, self._service_s = slots, service_s
        self._waiting: deque[tuple[Call, Callable[[Call], None]]] = deque()

    def wire(self, clock: Clock) -> None:
        self._clock = clock

    def arrive(self, call: Call, decide: Callable[[Call], None]) -> None:
        decide(call)

    def start(self, call: Call, done: Callable[[Call], None]) -> None:
        if not self._free:
            self._waiting.append((call, done))
            return
        self._free -= 1
        self._serve(call, done)

    def _serve(self, call: Call, done: Callable[[Call], None]) -> None:
        self._clock.at(self._clock.now_s + self._service_s(self._clock.now_s), lambda: self._end(call, done))

    def _end(self, call: Call, done: Callable[[Call], None]) -> None:
        if self._waiting:
            self._serve(*self._waiting.popleft())
        else:
            self._free += 1
        done(call)


class CpuService:
    """A simulated event loop: a call takes `steps` steps of `step_s` in its ready queue, an arrival `arrival_s`."""

    def __init__(self, steps: int = 2, step_s: float = 0.00125, arrival_s: float = 5e-6) -> None:
        self._steps, self._step_s, self._arrival_s = steps, step_s, arrival_s
        self._ready: deque[tuple[float, Callable[[], None]]] = deque()
        self._running = False

    def wire(self, clock: Clock) -> None:
        self._clock = clock

    def arrive(self, call: Call, decide: Callable[[Call], None]) -> None:
        self._soon(self._arrival_s, lambda: decide(call))

    def start(self, call: Call, done: Callable[[Call], None]) -> None:
        ready_s = self._clock.now_s
        self._soon(self._step_s, lambda: self._stepped(call, done, ready_s))

    def _stepped(self, call: Call, done: Callable[[Call], None], ready_s: float) -> None:
        call.steps += 1
        call.lag_s += self._clock.now_s - self._step_s - ready_s
        if call.steps == self._steps:
            done(call)
        else:
            self.start(call, done)

    def _soon(self, cost_s: float, act: Callable[[], None]) -> None:
        self._ready.append((cost_s, act))
        if not self._running:
            self._running = True
            self._step_next()

    def _step_next(self) -> None:
        cost_s, act = self._ready[0]
        self._clock.at(self._clock.now_s + cost_s, lambda: self._after(act))

    def _after(self, act: Callable[[], None]) -> None:
        self._ready.popleft()
        act()
        if self._ready:
            self._step_next()
        else:
            self._running = False


Service = IoService | CpuService


class Recorder:
    """The windows of a gate: samples by epoch, closed after the limit's time and count of samples."""

    def __init__(self, limit: Limit, lag_off: float) -> None:
        self.limit, self._lag_off = limit, lag_off
        self._epoch_s = self._full_at_s = 0.0
        self._open(0.0, 0)

    def _open(self, now_s: float, inflight: int) -> None:
        self._began_s, self._most, self._full = now_s, inflight, False
        self._rtts_s: list[float] = []
        self._begins_s: list[float] = []
        self._completed = self._dropped = 0

    def entered(self, inflight: int) -> None:
        self._most = max(self._most, inflight)

    def full(self, now_s: float, inflight: int) -> None:
        self._full = True
        if now_s < self._full_at_s or not isinstance(self.limit, GrowingLimit):
            return
        self._full_at_s = now_s + self.limit.window_s / FULL_LOOKS
        self.limit.when_full(self._window(now_s, inflight))

    def left(self, call: Call, now_s: float, inflight: int) -> None:
        self._completed += 1
        if call.began_s >= self._epoch_s and len(self._rtts_s) < MOST_SAMPLES:
            self._rtts_s.append(now_s - call.began_s - self._lag_off * call.lag_s)
            self._begins_s.append(call.began_s)
        duration_s = now_s - self._began_s
        if duration_s >= self.limit.window_s and len(self._rtts_s) >= LEAST_SAMPLES:
            window, before = self._window(now_s, inflight), self.limit.value
            if self.limit.update(window) != before:
                self._epoch_s = self._began_s
            self._open(now_s, inflight)

    def _window(self, now_s: float, inflight: int) -> Window:
        duration_s = now_s - self._began_s
        samples = self._rtts_s, self._begins_s
        return Window(duration_s, now_s, *samples, self._completed, self._dropped, self._most, inflight, self._full)


class SimulatedGate:
    """A gate that enforces a limit, with a queue bounded by the predicted wait and by the deadline."""

    def __init__(
        self, clock: Clock, service: Service, limit: Limit, max_wait_s: float, deadline_s: float, lag_off: float
    ) -> None:
        self._clock, self._service, self.limit = clock, service, limit
        self._max_wait_s, self._deadline_s = max_wait_s, deadline_s
        self._recorder = Recorder(limit, lag_off)
        self._queue: deque[Call] = deque()
        self.inflight = 0
        self._gap_s = self._service_s = 0.0
        self._left_s = -1.0

    def decide(self, call: Call) -> None:
        if self.inflight < self.limit.value and not self._queue:
            self._enter(call)
            return
        self._recorder.full(self._clock.now_s, self.inflight)
        if self.inflight < self.limit.value:
            self._queue.append(call)
            self._admit()
            return
        if (len(self._queue) + 1) * self._gap_s > self._max_wait_s or self._max_wait_s == 0:
            call.refused = True
        else:
            self._queue.append(call)

    def _enter(self, call: Call) -> None:
        call.began_s = self._clock.now_s
        self.inflight += 1
        self._recorder.entered(self.inflight)
        self._service.start(call, self._done)

    def _done(self, call: Call) -> None:
        now_s = call.ended_s = self._clock.now_s
        self.inflight -= 1
        if self._queue and self._left_s >= 0:
            self._gap_s += 0.1 * (now_s - self._left_s - self._gap_s)
        self._left_s = now_s if self._queue else -1.0
        rtt_s = now_s - call.began_s
        self._service_s += 0.1 * (rtt_s - self._service_s) if self._service_s else rtt_s
        self._recorder.left(call, now_s, self.inflight)
        self._admit()

    def _admit(self) -> None:
        while self._queue and self.inflight < self.limit.value:
            call = self._queue.popleft()
            waited_s = self._clock.now_s - call.arrived_s
            late = waited_s + 2 * self._service_s > self._deadline_s
            # Admit a call while none is inside, or a wrong estimate would never be corrected.
            if waited_s > self._max_wait_s or (late and self.inflight):
                call.refused = True
            else:
                self._enter(call)


@dataclass(slots=True)
class Report:
    """The calls of a run, and the limit every 10 ms."""

    phases: Sequence[Phase]
    deadline_s: float
    calls: list[Call] = field(default_factory=list)
    limits: list[tuple[float, int]] = field(default_factory=list)

    def _span(self, phase: int, settle_s: float) -> tuple[float, float]:
        began_s = sum(one.duration_s for one in self.phases[:phase])
        return began_s + settle_s, began_s + self.phases[phase].duration_s

    def _calls(self, phase: int, settle_s: float) -> Iterator[Call]:
        since_s, until_s = self._span(phase, settle_s)
        return (call for call in self.calls if since_s <= call.arrived_s < until_s)

    def goodput(self, phase: int = 0, settle_s: float = 0.0) -> float:
        """Return good answers as a share of the feasible ones: the arrivals or the capacity, whichever is lower."""
        calls = list(self._calls(phase, settle_s))
        good = sum(call.ended_s - call.arrived_s <= self.deadline_s for call in calls)
        since_s, until_s = self._span(phase, settle_s)
        return good / min(len(calls), self.phases[phase].capacity * (until_s - since_s))

    def p99_s(self, phase: int = 0, settle_s: float = 0.0) -> float:
        """Return the p99 latency of all served calls, late ones included, in seconds."""
        served = sorted(c.ended_s - c.arrived_s for c in self._calls(phase, settle_s) if c.ended_s < inf)
        return served[int(0.99 * (len(served) - 1))]

    def refused(self, phase: int = 0, settle_s: float = 0.0) -> float:
        """Return the share of the arrivals that was shed."""
        calls = list(self._calls(phase, settle_s))
        return sum(call.refused for call in calls) / len(calls)

    def limit_range(self, since_s: float = 0.0, until_s: float = inf) -> tuple[int, int]:
        """Return the lowest and the highest limit in a span of time."""
        values = [value for time_s, value in self.limits if since_s <= time_s < until_s]
        return min(values), max(values)


def simulate(
    limit: Limit,
    service: Service,
    phases: Sequence[Phase],
    *,
    max_wait_s: float = 0.0,
    deadline_s: float = 0.1,
    lag_off: float = 0.0,
    seed: int = 1,
) -> Report:
    """Run the phases one after the other until the last call has ended. Return the report.

    `max_wait_s` is the longest wait in the gate's queue, 0 for none. `lag_off` is the share of a call's wait in the
    loop's ready queue that is subtracted from its service time in samples.
    """
    clock, random = Clock(), Random(seed)
    service.wire(clock)
    gate = SimulatedGate(clock, service, limit, max_wait_s, deadline_s, lag_off)
    report = Report(phases, deadline_s)

    def arrive(time_s: float, number: int) -> None:
        call = Call(time_s, number)
        report.calls.append(call)
        service.arrive(call, gate.decide)

    end_s = 0.0
    for number, phase in enumerate(phases):
        time_s, end_s = end_s, end_s + phase.duration_s
        while phase.rate and (time_s := time_s + random.expovariate(phase.rate)) < end_s:
            clock.at(time_s, partial(arrive, time_s, number))
    for step in range(int(end_s / 0.01)):
        clock.at(step * 0.01, lambda: report.limits.append((clock.now_s, limit.value)))
    clock.run()
    return report
