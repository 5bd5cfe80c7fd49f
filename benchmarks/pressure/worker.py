"""The process in which a gate's own costs are measured: as `benchmarks.micro.worker`, on an arm's loop."""

from __future__ import annotations

import asyncio
import sys

from benchmarks.micro.worker import serve
from benchmarks.pressure.arms import ARMS
from benchmarks.pressure.costs import GUARDS, cases

__all__ = ["main"]


def main() -> None:
    arm = sys.argv[1]
    loop = ARMS[arm].loop()
    asyncio.set_event_loop(loop)
    serve(loop, cases(GUARDS[arm]()))
    loop.close()


if __name__ == "__main__":
    main()
