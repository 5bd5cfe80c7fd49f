"""Scenarios of overload with a real Gate on virtual time: Poisson arrivals in an open loop, and all outcomes.

A call is good if its answer comes within the client's deadline. Figures are deterministic by the seed.
`python -m tests.unit.pressure.gateload` prints the table.
"""

import asyncio
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from penstock.errors import Overloaded
from penstock.pressure import Gate
from penstock.testing import VirtualLoop, run

DEADLINE_S = 0.1
SLOTS, SERVICE_S = 4, 0.01
CPU_STEPS, CPU_STEP_S = 2, 0.00125
# The loop's time for a request before it can be shed, where the loop itself is the service.
ARRIVAL_S = 5e-6
CAPACITY = SLOTS / SERVICE_S
LOADS = 0.5, 1, 2, 5, 10


@dataclass(frozen=True, slots=True)
class Phase:
    """A time of `duration_s` with `rate` arrivals a second, each with `slowness` times the usual service time."""

    duration_s: float
    rate: float
    slowness: float = 1.0

    @property
    def feasible(self) -> float:
        """The feasible answers a second."""
        return min(self.rate, CAPACITY / self.slowness)


@dataclass(slots=True)
class Call:
    """One arrival and its outcome."""

    arrived_s: float
    slowness: float
    ended_s: float = math.inf
    reason: str = ""

    @property
    def latency_s(self) -> float:
        return self.ended_s - self.arrived_s

    @property
    def is_good(self) -> bool:
        return not self.reason and self.latency_s <= DEADLINE_S


@dataclass
class Report:
    """The calls of a run and its gate."""

    gate: Any
    calls: list[Call] = field(default_factory=list)

    def part(self, from_s: float, until_s: float) -> list[Call]:
        return [call for call in self.calls if from_s <= call.arrived_s < until_s]

    def goodput(self, phase: Phase, from_s: float, until_s: float) -> float:
        """Return good answers to the arrivals of that time, in percent of the feasible ones."""
        calls = self.part(from_s, until_s)
        # below the capacity, the arrivals are the feasible answers
        most = min(len(calls), phase.feasible * (until_s - from_s)) if phase.rate > phase.feasible else len(calls)
        return 100 * sum(call.is_good for call in calls) / max(1.0, most)

    def served_p99_s(self, from_s: float = 0.0, until_s: float = math.inf) -> float:
        return p99([call.latency_s for call in self.part(from_s, until_s) if not call.reason])

    def refusal_p99_s(self, from_s: float = 0.0, until_s: float = math.inf) -> float:
        return p99([call.latency_s for call in self.part(from_s, until_s) if call.reason])

    def refused(self, from_s: float = 0.0, until_s: float = math.inf) -> float:
        """Return the share of shed calls, in percent."""
        calls = self.part(from_s, until_s)
        return 100 * sum(bool(call.reason) for call in calls) / max(1, len(calls))

    def recovery_s(self, phase: Phase, from_s: float, until_s: float, bucket_s: float = 0.25) -> float:
        """Return the seconds after `from_s` until goodput stays above 90 %, in whole buckets."""
        buckets = int((until_s - from_s) / bucket_s)
        bad = [
            at
            for at in range(buckets)
            if self.goodput(phase, from_s + at * bucket_s, from_s + (at + 1) * bucket_s) < 90
        ]
        return bucket_s * (bad[-1] + 1) if bad else 0.0


def p99(values: list[float]) -> float:
    return sorted(values)[math.ceil(len(values) * 0.99) - 1] if values else 0.0


Service = Callable[[float], Any]


def backend() -> Service:
    """Return a dependency with four connections of 10 ms a call and a queue before them."""
    slots = asyncio.Semaphore(SLOTS)

    async def serve(slowness: float) -> None:
        async with slots:
            await asyncio.sleep(SERVICE_S * slowness)

    return serve


def processor() -> Service:
    """Return the loop itself as a service: two steps with an await between them."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)

    async def serve(slowness: float) -> None:
        for _ in range(CPU_STEPS):
            loop.advance(CPU_STEP_S * slowness)
            await asyncio.sleep(0)

    return serve


def shared(service: Callable[[], Service], stalls_per_call: float = 0.025) -> Callable[[], Service]:
    """Return the service on a shared machine: the loop stalls for 5 to 60 ms now and then."""

    def make() -> Service:
        loop, dice, serve = asyncio.get_running_loop(), random.Random(5), service()
        assert isinstance(loop, VirtualLoop)

        async def stalling(slowness: float) -> None:
            if dice.random() < stalls_per_call:
                loop.advance(dice.uniform(0.005, 0.06))
            await serve(slowness)

        return stalling

    return make


class Load:
    """An open-loop load: arrivals are sent at their times, independent of earlier answers."""

    def __init__(self, gate: Gate, serve: Service, arrival_s: float) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        self.loop, self.gate, self.serve, self.arrival_s = loop, gate, serve, arrival_s
        self.report = Report(gate)
        self.tasks: set[asyncio.Task[None]] = set()

    async def send(self, phases: Sequence[Phase], seed: int) -> Report:
        dice, begins_s, ends_s = random.Random(seed), 0.0, 0.0
        for phase in phases:
            begins_s, ends_s = ends_s, ends_s + phase.duration_s
            at_s = begins_s
            while (at_s := at_s + dice.expovariate(phase.rate)) < ends_s:
                # as at a socket, arrivals during a busy loop are read late together, with their own arrival times
                if at_s > self.loop.time():
                    await asyncio.sleep(at_s - self.loop.time())
                self.arrive(Call(at_s, phase.slowness))
        await asyncio.gather(*self.tasks)
        return self.report

    def arrive(self, call: Call) -> None:
        self.report.calls.append(call)
        self.loop.advance(self.arrival_s)
        task = self.loop.create_task(self.handle(call))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def handle(self, call: Call) -> None:
        try:
            async with self.gate.entry(arrived_s=call.arrived_s):
                await self.serve(call.slowness)
        except Overloaded as refused:
            call.reason = refused.reason
        call.ended_s = self.loop.time()


def simulate(limit: Any, service: Callable[[], Service], phases: Sequence[Phase], *, seed: int = 1) -> Report:
    """Run the phases one after the other through a gate with this limit. Return the report."""

    async def main() -> Report:
        gate = Gate(limit, deadline_s=DEADLINE_S)
        arrival_s = ARRIVAL_S if service is processor else 0.0
        return await Load(gate, service(), arrival_s).send(phases, seed)

    return run(main)


def steady(load: float, seconds: float) -> list[Phase]:
    return [Phase(seconds, load * CAPACITY)]


SPIKE = [Phase(2, 0.5 * CAPACITY), Phase(2, 5 * CAPACITY), Phase(2, 0.5 * CAPACITY)]
SLOW_DEPENDENCY = [Phase(2, 0.6 * CAPACITY), Phase(4, 0.6 * CAPACITY, 4.0), Phase(2, 0.6 * CAPACITY)]


def row(report: Report, phase: Phase, from_s: float, until_s: float) -> str:
    """Return a line of goodput, latency of served calls, share of shed calls and their latency."""
    return (
        f"{report.goodput(phase, from_s, until_s):5.1f} % good, served p99 "
        f"{1e3 * report.served_p99_s(from_s, until_s):5.1f} ms, {report.refused(from_s, until_s):5.2f} % refused, p99 "
        f"{1e3 * report.refusal_p99_s(from_s, until_s):4.1f} ms"
    )


def table() -> None:
    for name, service, limits in (("4 x 10 ms", backend, (SLOTS, "auto")), ("CPU-bound", processor, (2, "auto"))):
        for limit in limits:
            for load in LOADS:
                phase = steady(load, 5)
                print(f"{name}, limit {limit}, {load}x: {row(simulate(limit, service, phase), phase[0], 2, 5)}")
    for limit in (SLOTS, "auto"):
        report = simulate(limit, backend, SPIKE)
        recovery_s = report.recovery_s(SPIKE[2], 4, 6)
        print(f"spike, limit {limit}: {row(report, SPIKE[1], 2, 4)}, over in {recovery_s} s")
        report = simulate(limit, backend, SLOW_DEPENDENCY)
        print(f"slow dependency, limit {limit}, first second: {row(report, SLOW_DEPENDENCY[1], 2, 3)}")
        print(f"slow dependency, limit {limit}, then: {row(report, SLOW_DEPENDENCY[1], 3, 6)}")
        print(f"slow dependency, limit {limit}, after it: {row(report, SLOW_DEPENDENCY[2], 6, 8)}")


if __name__ == "__main__":
    table()
