"""The process whose micro rows are counted: it runs each case with few and with many operations between marks.

A mark is a client request to callgrind, and a system call that strace shows. The difference of both runs leaves out
what a run needs once.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys

from benchmarks.arms import new_loop
from benchmarks.micro.case import Case, Loop
from benchmarks.micro.worker import CASES

__all__ = ["FEW", "FOLDER", "LIBRARY", "MANY", "count", "operations"]

LIBRARY = "BENCHMARK_MARKS"  # the variable with the path of the library for callgrind
FOLDER = "/benchmark-mark"  # it does not exist
START, FEW, MANY = "start", "few", "many"


def main() -> None:
    arm, *names = sys.argv[1:]
    loop = new_loop(arm)
    asyncio.set_event_loop(loop)
    for name in sorted(names, key=lambda name: CASES[name].last):
        try:
            count(loop, name)
        except Exception as error:  # this row has no count, the others do
            print(f"{arm}, {name!r}: {type(error).__name__}: {error}", file=sys.stderr)


def count(loop: Loop, name: str) -> None:
    """Run a case for warm-up, with few and with many operations, with a mark after each."""
    case = CASES[name]
    few, many = operations(case)
    for what, operation_count in ((START, few), (FEW, few), (MANY, many)):
        case.run(loop, operation_count)
        _mark(f"{what} {name}")


def operations(case: Case) -> tuple[int, int]:
    """Return the numbers of operations of the short and of the long run."""
    few = -(-case.counted // (4 * case.step)) * case.step
    return few, 4 * few


def _mark(name: str) -> None:
    if path := os.environ.get(LIBRARY):
        ctypes.CDLL(path).mark(name.encode())
    os.access(f"{FOLDER}/{name}", os.F_OK)


if __name__ == "__main__":
    main()
