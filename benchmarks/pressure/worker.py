"""The process in which a gate's own costs are measured: as `benchmarks.micro.worker`, on an arm's loop."""

from __future__ import annotations

import asyncio
import sys

from benchmarks.micro.cases import Case
from benchmarks.micro.worker import serve
from benchmarks.pressure import answers, costs
from benchmarks.pressure.arms import ARMS

__all__ = ["ROWS", "main"]

# The other arms have the same, or none.
ROWS = {
    "semaphore": costs.COSTS,
    "limit-concurrency": (answers.REFUSED,),
    "penstock@fixed": (*costs.COSTS, answers.REFUSED),
}


def cases(arm: str) -> dict[str, Case]:
    """The bodies of an arm's rows."""
    if arm == "semaphore":
        return costs.cases(costs.Semaphores())
    if arm == "limit-concurrency":
        return answers.refused(answers.by_uvicorn)
    return costs.cases(costs.Gates()) | answers.refused(answers.by_a_gate)


def main() -> None:
    arm = sys.argv[1]
    loop = ARMS[arm].loop()
    asyncio.set_event_loop(loop)
    serve(loop, cases(arm))
    loop.close()


if __name__ == "__main__":
    main()
