"""The worker process of the micro rows: JSON requests on stdin, the cost in ns per operation on stdout, a line each.

With `--once` it runs one case a given number of times and ends, for a profiler or valgrind.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import statistics
import sys
import time
from collections.abc import Mapping

from benchmarks.arms import new_loop
from benchmarks.micro.case import Case
from benchmarks.micro.cases import CASES as LOOP_CASES
from benchmarks.tasks.cases import TASK_CASES

__all__ = ["main", "serve"]

Loop = asyncio.AbstractEventLoop
CASES = LOOP_CASES | TASK_CASES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("arm")
    parser.add_argument("--once", nargs=2, metavar=("CASE", "COUNT"))
    options = parser.parse_args()
    loop = new_loop(options.arm)
    asyncio.set_event_loop(loop)
    if options.once:
        CASES[options.once[0]].run(loop, int(options.once[1]))
    else:
        serve(loop, CASES)
    loop.close()


def serve(loop: Loop, cases: Mapping[str, Case]) -> None:
    """Answer requests until stdin ends, or a case is the last of a loop. A request with no repeats is a warm-up."""
    counts: dict[str, int] = {}
    for line in sys.stdin:
        request = json.loads(line)
        name, case = request["case"], cases[request["case"]]
        if name not in counts:
            counts[name] = 1 if case.once else _calibrate(loop, case, request["seconds"])
        cost_ns = _cost_ns(loop, case, counts[name], request["repeats"])
        ends = case.last and request["repeats"] > 0
        print(json.dumps({"cost_ns": cost_ns, "ends": ends}), flush=True)
        if ends:
            return


def _calibrate(loop: Loop, case: Case, seconds: float) -> int:
    """Return the number of operations that take about `seconds`; measuring it is the warm-up too.

    The first run is not timed: it may import modules and start threads.
    """
    count = case.step
    case.run(loop, count)
    while (taken_ns := _time_ns(loop, case, count)) < seconds * 2.5e8:
        count *= 2
    return max(1, round(count * seconds * 1e9 / taken_ns / case.step)) * case.step


def _cost_ns(loop: Loop, case: Case, count: int, repeats: int) -> float:
    gc.collect()
    repeats = min(repeats, 1) if case.once else repeats
    return statistics.median(_time_ns(loop, case, count) / count for _ in range(repeats)) if repeats else 0.0


def _time_ns(loop: Loop, case: Case, count: int) -> int:
    # CPU time of all threads leaves out other processes. Rows with two threads run on one CPU as well: on two, the
    # timing of wake-ups makes the cost of one loop vary tenfold between rounds.
    start_ns = time.process_time_ns()
    own_ns = case.run(loop, count)
    return time.process_time_ns() - start_ns if own_ns is None else own_ns


if __name__ == "__main__":
    main()
