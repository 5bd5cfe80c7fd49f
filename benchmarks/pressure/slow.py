"""Slow services behind a gate with limit "auto", in real time: the share refused although capacity is free.

Run as a process: `python -m benchmarks.pressure.slow ARM SECONDS` prints one line of JSON, percent by service.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.machine import Placement, module_command, read_line, spawn, stop
from benchmarks.pressure.arms import plain_loop

__all__ = ["ARM", "refused_percent"]

# the arm without a given limit
ARM = "penstock@auto"


@dataclass(frozen=True, slots=True)
class Service:
    """A service with `rate_per_s` calls of `service_s(dice)` seconds and unlimited concurrency."""

    name: str
    rate_per_s: float
    service_s: Callable[[random.Random], float]


SERVICES = (
    Service("3 s at 20/s", 20, lambda _: 3.0),
    Service("half 2 ms and half 0.5 s at 100/s", 100, lambda dice: dice.choice((0.002, 0.5))),
    Service("40 ms at 300/s", 300, lambda _: 0.04),
)


async def _drive(service: Service, seconds: float) -> float:
    """Send the calls at their times and return the refused share, in percent."""
    from penstock import Gate
    from penstock.errors import Overloaded

    gate, dice, loop = Gate("auto"), random.Random(service.name), asyncio.get_running_loop()
    counts = [0, 0]
    tasks: set[asyncio.Task[None]] = set()

    async def call() -> None:
        counts[0] += 1
        try:
            async with gate.entry():
                await asyncio.sleep(service.service_s(dice))
        except Overloaded:
            counts[1] += 1

    at_s = start_s = loop.time()
    while (at_s := at_s + dice.expovariate(service.rate_per_s)) < start_s + seconds:
        await asyncio.sleep(max(0.0, at_s - loop.time()))
        task = loop.create_task(call())
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    return 100 * counts[1] / counts[0]


async def _all(seconds: float) -> dict[str, float]:
    shares = await asyncio.gather(*(_drive(service, seconds) for service in SERVICES))
    return dict(zip((service.name for service in SERVICES), shares, strict=True))


def refused_percent(arm: str, seconds: float, placement: Placement) -> float:
    """Run the services at once in a new process; return the largest of their shares, in percent."""
    process = spawn(module_command("benchmarks.pressure.slow", arm, str(seconds)), placement.server)
    try:
        return float(max(json.loads(read_line(process)).values()))
    finally:
        stop(process)


def main() -> None:
    loop = plain_loop(sys.argv[1])
    print(json.dumps(loop.run_until_complete(_all(float(sys.argv[2])))), flush=True)
    loop.close()


if __name__ == "__main__":
    main()
