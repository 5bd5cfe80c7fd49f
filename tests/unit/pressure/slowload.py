"""Scenarios of slow services behind a real Gate with limit "auto" on virtual time: the share shed despite capacity.

Poisson arrivals in an open loop, seeded. `python -m tests.unit.pressure.slowload` prints the table.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

from penstock.errors import Overloaded
from penstock.pressure import Gate
from penstock.testing import run

__all__ = ["SCENARIOS", "Outcome", "Scenario", "simulate"]

ServiceTime = Callable[[random.Random, float], float]


@dataclass(frozen=True, slots=True)
class Scenario:
    """A load of `rate(now_s)` arrivals a second for `seconds`, with `slots` calls at once, None for any number."""

    name: str
    seconds: float
    rate: Callable[[float], float]
    service_s: ServiceTime
    slots: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a call: its arrival, its latency, and the reason if it was shed."""

    arrived_s: float
    took_s: float
    reason: str


def constant(value: float) -> Callable[[float], float]:
    return lambda _: value


def fixed_s(value: float) -> ServiceTime:
    return lambda _dice, _now: value


SCENARIOS = {
    one.name: one
    for one in [
        Scenario("3 s at 20/s", 60, constant(20), fixed_s(3)),
        Scenario("10 s at 5/s", 140, constant(5), fixed_s(10)),
        Scenario("half 2 ms, half 0.5 s, 200/s", 15, constant(200), lambda dice, _: dice.choice((0.002, 0.5))),
        Scenario("half 2 ms, half 0.5 s, 50/s", 30, constant(50), lambda dice, _: dice.choice((0.002, 0.5))),
        Scenario("cold start, 40 ms at 600/s", 3, constant(600), fixed_s(0.04)),
        Scenario("around 3 s at 20/s", 60, constant(20), lambda dice, _: dice.expovariate(1 / 3)),
        Scenario("around 40 ms at 600/s", 5, constant(600), lambda dice, _: dice.expovariate(25)),
        Scenario("3 s, 5/s to 40/s", 80, lambda now: 5 if now < 30 else 40, fixed_s(3)),
        Scenario("40 ms, 100/s to 600/s", 6, lambda now: 100 if now < 3 else 600, fixed_s(0.04)),
        Scenario("1 in 100 takes 5 s, others 20 ms, 300/s", 20, constant(300),
                 lambda dice, _: 5.0 if dice.random() < 0.01 else 0.02),
        Scenario("1 s at 300/s", 30, constant(300), fixed_s(1)),
        Scenario("3 s turns 6 s, 20/s", 120, constant(20), lambda _, now: 3 if now < 40 else 6),
    ]
}  # fmt: skip


async def _main(scenario: Scenario, seed: int, gate: Gate) -> list[Outcome]:
    loop = asyncio.get_running_loop()
    dice = random.Random(seed)
    slots = None if scenario.slots is None else asyncio.Semaphore(scenario.slots)
    outcomes: list[Outcome] = []
    start_s = loop.time()

    async def call(arrived_s: float) -> None:
        reason = ""
        try:
            async with gate.entry(arrived_s=start_s + arrived_s):
                service_s = scenario.service_s(dice, arrived_s)
                if slots is None:
                    await asyncio.sleep(service_s)
                else:
                    async with slots:
                        await asyncio.sleep(service_s)
        except Overloaded as refused:
            reason = refused.reason
        outcomes.append(Outcome(arrived_s, loop.time() - start_s - arrived_s, reason))

    at_s, tasks = 0.0, set()
    while (at_s := at_s + dice.expovariate(scenario.rate(at_s))) < scenario.seconds:
        await asyncio.sleep(start_s + at_s - loop.time())
        tasks.add(asyncio.ensure_future(call(at_s)))
    await asyncio.gather(*tasks)
    return sorted(outcomes, key=lambda one: one.arrived_s)


def simulate(scenario: Scenario, *, limit: object = "auto", seed: int = 1) -> tuple[list[Outcome], Gate]:
    """Run the scenario. Return its outcomes and the gate."""
    made: list[Gate] = []

    async def main() -> list[Outcome]:
        made.append(Gate(limit))  # type: ignore[arg-type]
        return await _main(scenario, seed, made[0])

    outcomes = run(main)
    return outcomes, made[0]


def refused(outcomes: list[Outcome]) -> float:
    """Return the share of shed calls, in percent."""
    return 100 * sum(bool(one.reason) for one in outcomes) / len(outcomes)


def table() -> None:
    for scenario in SCENARIOS.values():
        shares, limits = [], []
        for seed in (1, 2, 3):
            outcomes, gate = simulate(scenario, seed=seed)
            shares.append(f"{refused(outcomes):6.2f} %")
            limits.append(gate.statistics().limit)
        print(f"{scenario.name:42} refused {' '.join(shares)}, limit at the end {limits}", flush=True)


if __name__ == "__main__":
    table()
