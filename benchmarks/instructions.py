"""Instructions per operation, under callgrind: a figure that no neighbour on the machine can move.

A micro row is run twice with different counts; the difference leaves out start-up, imports and warm-up.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.pop(0)  # see compare.py
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.arms import ARMS, available
from benchmarks.machine import ROOT, module_command
from benchmarks.micro.cases import CASES

__all__ = ["main"]

COUNTS = (2000, 22_000)


def main() -> None:
    parser = argparse.ArgumentParser(description="Instructions per operation of the micro rows, by valgrind.")
    parser.add_argument("--only", default="call_soon|create_task|timer set|sleep", metavar="PATTERN")
    parser.add_argument("--arms", default=",".join(ARMS))
    options = parser.parse_args()
    if shutil.which("valgrind") is None:
        raise SystemExit("valgrind is not installed (apt-get install valgrind)")
    arms, missing = available(options.arms.split(","))
    rows = [row for row in CASES if re.search(options.only, row)]
    print(*missing, f"{'instructions per operation':<32}{''.join(f'{arm:>14}' for arm in arms)}", sep="\n")
    for row in rows:
        print(f"{row:<32}", *(f"{_shown(per_operation(arm, row)):>13}" for arm in arms), flush=True)


def per_operation(arm: str, row: str) -> float | None:
    """Instructions per operation, or None when the arm does not run under valgrind."""
    few, many = (_collected(arm, row, count) for count in COUNTS)
    return None if few is None or many is None else (many - few) / (COUNTS[1] - COUNTS[0])


def _collected(arm: str, row: str, count: int) -> int | None:
    tool = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    command = [*tool, *module_command("benchmarks.micro.worker", arm, "--once", row, str(count))]
    environment = os.environ | {"PYTHONHASHSEED": "0"}  # the same dictionaries, the same collisions
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    found = re.search(r"Collected : (\d+)", run.stderr)
    return int(found[1]) if found and run.returncode == 0 else None


def _shown(instructions: float | None) -> str:
    return "failed" if instructions is None else f"{instructions:,.0f}"


if __name__ == "__main__":
    main()
