"""The goals: how many times cheaper than uvloop penstock has to be on each row. The first pattern that fits counts."""

from __future__ import annotations

from fnmatch import fnmatchcase

__all__ = ["GOALS", "REFERENCE", "goal_of"]

REFERENCE = "uvloop"  # the arm the goals are ratios to

GOALS: tuple[tuple[str, float], ...] = (
    ("call_soon *", 1.8),
    ("timer *", 1.8),
    ("threadsafe *", 1.8),
    ("create_task*", 1.5),
    ("sleep(0)*", 1.1),  # C tasks cost most here, and every loop shares them
    ("echo * 10 x 1 KiB*", 1.15),
    ("echo * 100 x 1 KiB*", 1.15),
    ("*", 0.97),
)


def goal_of(row: str) -> float:
    """The least ratio to uvloop this row has to reach."""
    return next(ratio for pattern, ratio in GOALS if fnmatchcase(row, pattern))
