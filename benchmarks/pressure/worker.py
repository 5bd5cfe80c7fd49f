"""The worker process for the costs of a gate, as `benchmarks.micro.worker`, on an arm's loop.

The loop's own gate is off: a case of 20,000 steps would trigger it.
"""

from __future__ import annotations

import asyncio
import sys

from benchmarks.method.trial import base_arm
from benchmarks.micro.cases import Case
from benchmarks.micro.worker import serve
from benchmarks.pressure import answers, costs
from benchmarks.pressure.arms import plain_loop

__all__ = ["ROWS", "main"]

# Other arms have the same costs as one of these, or none.
ROWS = {
    "semaphore": costs.COSTS,
    "limit-concurrency": (answers.REFUSED,),
    "penstock@fixed": (*costs.COSTS, answers.REFUSED),
}


def cases(arm: str) -> dict[str, Case]:
    """Return the bodies of an arm's rows."""
    kind = base_arm(arm)
    if kind == "semaphore":
        return costs.cases(costs.Semaphores())
    if kind == "limit-concurrency":
        return answers.refused(answers.by_uvicorn)
    return costs.cases(costs.Gates()) | answers.refused(answers.by_a_gate)


def main() -> None:
    arm = sys.argv[1]
    loop = plain_loop(arm)
    asyncio.set_event_loop(loop)
    serve(loop, cases(arm))
    loop.close()


if __name__ == "__main__":
    main()
