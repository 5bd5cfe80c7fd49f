"""Measures the cost of `poll_every_turns` and `poll_every_us`, whose defaults were chosen by it (CPU time, medians)."""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

sys.path.pop(0)  # see compare.py
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.micro.cases import CASES
from penstock.config import LoopConfig
from penstock.loop import EventLoop

__all__ = ["main"]

ROUNDS = 5
ROWS = {"call_soon chain, 0 arguments": 200_000, "create_task + await": 40_000}
POLICIES = [LoopConfig(poll_every_turns=turns) for turns in (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024)]
POLICIES += [LoopConfig(poll_every_us=microseconds) for microseconds in (10, 25, 50, 200, 500)]


def main() -> None:
    costs_ns: dict[tuple[LoopConfig, str], list[float]] = {}
    for _ in range(ROUNDS):
        for policy in POLICIES:
            for row, count in ROWS.items():
                costs_ns.setdefault((policy, row), []).append(cost_ns(policy, row, count))
    print(f"{'turns':>6} {'µs':>6}", *(f"{row:>32}" for row in ROWS))
    for policy in POLICIES:
        medians = (f"{statistics.median(costs_ns[policy, row]):>29.0f} ns" for row in ROWS)
        print(f"{policy.poll_every_turns:>6} {policy.poll_every_us:>6}", *medians)


def cost_ns(policy: LoopConfig, row: str, count: int) -> float:
    """Run a micro row once on a fresh loop; return CPU time in ns per operation."""
    loop = EventLoop(policy)
    began_s = time.process_time()
    CASES[row].run(loop, count)
    took_s = time.process_time() - began_s
    loop.close()
    return took_s / count * 1e9


if __name__ == "__main__":
    main()
