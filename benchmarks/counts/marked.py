"""The process whose micro rows are counted: it runs each case with few and with many operations between marks.

A mark is a client request to callgrind, and a system call that strace shows. The difference of both runs leaves out
what a run needs once.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence

from benchmarks.arms import new_loop
from benchmarks.micro.case import Case, Loop
from benchmarks.micro.worker import CASES

__all__ = ["FEW", "FOLDER", "LIBRARY", "MANY", "by_row", "count", "operations"]

LIBRARY = "BENCHMARK_MARKS"  # the variable with the path of the library for callgrind
FOLDER = "/benchmark-mark"  # it does not exist
START, FEW, MANY = "start", "few", "many"


def main() -> None:
    arm, *names = sys.argv[1:]
    loop = new_loop(arm)
    asyncio.set_event_loop(loop)
    _wait_for_monitors()
    for number, name in sorted(enumerate(names), key=lambda numbered: CASES[numbered[1]].last):
        try:
            count(loop, CASES[name], number)
        except Exception as error:  # this row has no count, the others do
            print(f"{arm}, {name!r}: {type(error).__name__}: {error}", file=sys.stderr)


def count(loop: Loop, case: Case, number: int) -> None:
    """Run a case for warm-up, with few and with many operations, with a mark of its number after each."""
    few, many = operations(case)
    for what, operation_count in ((START, few), (FEW, few), (MANY, many)):
        case.run(loop, operation_count)
        _mark(f"{what} {number}")


def _wait_for_monitors() -> None:
    """Wait until penstock's attach server serves: what a process does once, in a thread, is no part of an operation."""
    service = sys.modules.get("penstock.runtime.attach.service")
    while service is not None and not any(each.name == "penstock-attach-io" for each in threading.enumerate()):
        time.sleep(0.01)


def operations(case: Case) -> tuple[int, int]:
    """Return the numbers of operations of the short and of the long run."""
    few = -(-case.counted // (4 * case.step)) * case.step
    return few, 4 * few


def by_row(found: Mapping[tuple[str, int], int], rows: Sequence[str]) -> dict[str, float]:
    """Return the cost of an operation of each row whose runs were both counted, from the costs by kind and number."""
    costs = {}
    for number, row in enumerate(rows):
        if (FEW, number) in found and (MANY, number) in found:
            few, many = operations(CASES[row])
            costs[row] = (found[MANY, number] - found[FEW, number]) / (many - few)
    return costs


def _mark(name: str) -> None:
    if path := os.environ.get(LIBRARY):
        ctypes.CDLL(path).mark(name.encode())
    os.access(f"{FOLDER}/{name}", os.F_OK)


if __name__ == "__main__":
    main()
