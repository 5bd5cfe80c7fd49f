"""What a measurement is: a sample, and a trial that yields one sample for each of its rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = ["IN_BYTES", "IN_PERCENT", "Effort", "Sample", "Trial", "more_is_better", "select"]

# how the names of rows end whose cost is no time
IN_BYTES = ", bytes"
IN_PERCENT = ", %"
GOODPUT = "goodput, %"  # the one cost that is a gain


@dataclass(frozen=True, slots=True)
class Sample:
    """One arm, one row, one round. Less is better, but for goodput; rows without a client have no rate or latency."""

    cost_ns: float  # per operation, or server CPU per request; bytes or percent where the row says so
    rate_per_s: float | None = None
    p50_us: float | None = None
    p99_us: float | None = None


@dataclass(frozen=True, slots=True)
class Trial:
    """One run of one arm. An echo server yields two rows: fresh and warm."""

    rows: tuple[str, ...]
    run: Callable[[str], Mapping[str, Sample]]  # arm -> a sample for each row
    limit: bool = False  # also run the C server
    quick: bool = True  # part of a quick run
    times: int = 1  # as many rounds of it in each round: pairs of arms close in time, where a few percent matter

    def matches(self, pattern: str) -> bool:
        return any(re.search(pattern, row, re.IGNORECASE) for row in self.rows)


@dataclass(frozen=True, slots=True)
class Effort:
    """How long things are measured, in seconds per arm, row and round."""

    micro_s: float
    micro_repeats: int
    fresh_s: float
    warmup_s: float
    warm_s: float
    http_s: float


def more_is_better(row: str) -> bool:
    return row.endswith(GOODPUT)


def select(trials: list[Trial], pattern: str, quick: bool) -> list[Trial]:
    """The trials that have a row fitting the pattern and, without a pattern, belong to a quick run."""
    return [trial for trial in trials if trial.matches(pattern) and (trial.quick or not quick or pattern)]
