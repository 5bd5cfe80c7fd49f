"""The process in which an arm measures a trial; it prints a line of JSON with a sample for each row.

Its workers import it as their main module, so its imports are inside `main`.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main(arm: str, name: str, seconds: str, cores: str) -> None:
    import json
    from dataclasses import asdict

    from benchmarks.executors import arms
    from benchmarks.executors.cases import CASES, Bench

    case = CASES[name]
    worker_count = int(cores) * case.per_core
    samples = arms.run(
        arm, worker_count, lambda call, opened_ns: case.run(Bench(call, opened_ns, worker_count, float(seconds)))
    )
    print(json.dumps({row: asdict(sample) for row, sample in samples.items()}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
