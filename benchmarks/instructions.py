"""Counts instructions and system calls per operation, figures that other load on the machine hardly changes.

Each micro row is run with few and with many operations in one process; the difference leaves out start-up, imports and
warm-up. Servers get one request at a time on each of their connections. callgrind does not count the kernel's work, so
a difference between two arms is a larger share of the instructions than of the cost of a request. strace counts the
system calls of all threads.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.pop(0)  # see compare.py
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.arms import ARMS, available
from benchmarks.counts import callgrind, strace
from benchmarks.counts.loads import SERVED
from benchmarks.counts.table import Count, Counts, lines
from benchmarks.micro.worker import CASES
from benchmarks.net.certificate import make_certificate
from benchmarks.tasks import arms as task_arms

__all__ = ["main"]

DEFAULT = "call_soon|create_task|timer set|sleep"
TOOLS = {"callgrind": callgrind, "strace": strace}


def main() -> None:
    options = _options()
    notes = [f"no counts of {name}: {why}" for name, tool in TOOLS.items() if (why := tool.missing())]
    if len(notes) == len(TOOLS):
        print(*notes, sep="\n", file=sys.stderr)
        return
    make_certificate()
    arms, missing = _available(options.arms.split(","))
    rows = [row for row in (*CASES, *SERVED) if re.search(options.only, row)]
    counts = Counts.of_now(count(arms, rows), [*notes, *missing])
    print(*counts.notes, *lines(counts, rows), sep="\n")
    if options.json:
        counts.save(options.json)


def count(arms: list[str], rows: list[str]) -> dict[str, dict[str, Count]]:
    """Return the counts by row and arm; as many processes as there are CPUs count at the same time."""
    micro = [row for row in rows if row in CASES and CASES[row].counted]
    served = [row for row in rows if row in SERVED]
    found: dict[str, dict[str, Count]] = {row: {arm: Count() for arm in arms} for row in [*micro, *served]}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for kind, tool in TOOLS.items():
            if tool.missing():
                continue
            by_arm = {arm: pool.submit(tool.per_operation, arm, micro) for arm in arms if micro}
            by_row = {(arm, row): pool.submit(tool.per_request, arm, row) for arm in arms for row in served}
            for arm, operations in by_arm.items():
                for row, value in operations.result().items():
                    found[row][arm] = found[row][arm].with_value(kind, value)
            for (arm, row), request in by_row.items():
                found[row][arm] = found[row][arm].with_value(kind, request.result())
    return found


def _available(arms: list[str]) -> tuple[list[str], list[str]]:
    """Split the arms, of loops and of tasks, into available ones and lines about missing ones."""
    loops, missing = available([arm for arm in arms if arm not in task_arms.ARMS or arm in ARMS])
    more, absent = task_arms.available([arm for arm in arms if arm in task_arms.ARMS and arm not in ARMS])
    return [arm for arm in arms if arm in {*loops, *more}], [*missing, *absent]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Instructions and system calls per operation, by valgrind and strace.")
    parser.add_argument("--only", default=DEFAULT, metavar="PATTERN", help="rows with it; default %(default)s; all: .")
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="for compare.py --counts")
    return parser.parse_args()


if __name__ == "__main__":
    main()
