"""The goals of each part of the benchmark: what penstock has to reach on each row, and against whom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

__all__ = ["BEST", "EXECUTOR_GOALS", "LOOP_GOALS", "Goals"]

BEST = "the best other"  # whichever of the other arms is cheapest on the row


@dataclass(frozen=True, slots=True)
class Goals:
    """How many times cheaper than `reference` each row has to be, at least; the first pattern that fits a row counts.

    `own` is for rows that are held against another row of the same arm: which one, and how many times it at most.
    Rows `beside` them are not judged: nothing of an executor is in them.
    """

    reference: str
    ratios: tuple[tuple[str, float], ...]
    own: Mapping[str, tuple[str, float]] = field(default_factory=dict)
    beside: tuple[str, ...] = ()

    def of(self, row: str) -> float | None:
        """The least ratio to the reference, None where the row has none."""
        return next((ratio for pattern, ratio in self.ratios if fnmatchcase(row, pattern)), None)


LOOP_GOALS = Goals(
    "uvloop",
    (
        ("call_soon *", 1.8),
        ("timer *", 1.8),
        ("threadsafe *", 1.8),
        ("create_task*", 1.5),
        ("sleep(0)*", 1.1),  # C tasks cost most here, and every loop shares them
        ("echo * 10 x 1 KiB*", 1.15),
        ("echo * 100 x 1 KiB*", 1.15),
        ("*", 0.97),
    ),
)

# No other arm has shared memory, so the best of all others is the best without it.
EXECUTOR_GOALS = Goals(
    BEST,
    (
        ("one call, median", 2.0),
        ("a call of 64 in flight", 5.0),
        ("10 MiB *", 10.0),
    ),
    own={"loop delay p99, jobs in the executor": ("loop delay p99, idle", 3.0)},
    beside=("loop delay p99, idle", "loop delay p99, the same jobs in the loop"),
)
