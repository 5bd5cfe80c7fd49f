"""A trial is one run of one arm; it returns a sample for each of its rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

__all__ = [
    "IN_BYTES",
    "IN_PERCENT",
    "LIMIT",
    "Effort",
    "Pair",
    "Sample",
    "Trial",
    "base_arm",
    "more_is_better",
    "select",
    "twin_of",
    "with_twin",
]

LIMIT = "C"  # the echo server in C: an arm of the echo rows only, never a rival
AGAIN = "again"
# the endings of rows whose cost is not a time
IN_BYTES = ", bytes"
IN_PERCENT = ", %"
GOODPUT = "goodput, %"  # the only cost of which more is better


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement of one arm on one row in one round. Rows without a client have no rate and no latency.

    In a duet, `beside_ns` is the cost of the judged arm, which was measured at the same time.
    """

    cost_ns: float  # per operation, or server CPU per request; bytes or percent where the row's name ends so
    rate_per_s: float | None = None
    p50_us: float | None = None
    p99_us: float | None = None
    beside_ns: float | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """A duet: samples of the judged arm and of another one, measured at the same time."""

    subject: Sample
    other: Sample


@dataclass(frozen=True, slots=True)
class Trial:
    """A run of one arm that yields all `rows`; an echo server yields two, fresh and warm."""

    rows: tuple[str, ...]
    run: Callable[[str], Mapping[str, Sample]]  # arm -> a sample for each row
    limit: bool = False  # also run the C server
    quick: bool = True  # part of a quick run
    duet: Callable[[str, str], Pair] | None = None  # the judged arm and another one, both at the same time
    times: int = 1  # pairs of arms measured per round, for rows where a few percent matter

    def matches(self, pattern: str) -> bool:
        return any(re.search(pattern, row, re.IGNORECASE) for row in self.rows)


@dataclass(frozen=True, slots=True)
class Effort:
    """Measuring times in seconds per arm, row and round."""

    micro_s: float
    micro_repeats: int
    warmup_s: float
    warm_s: float
    http_s: float


def more_is_better(row: str) -> bool:
    return row.endswith(GOODPUT)


def select(trials: list[Trial], pattern: str, quick: bool) -> list[Trial]:
    """Return the trials with a row that matches the pattern; without a pattern, those of a quick run if `quick`."""
    return [trial for trial in trials if trial.matches(pattern) and (trial.quick or not quick or pattern)]


def base_arm(arm: str) -> str:
    """Return the arm without its label: `penstock` for `penstock:again`."""
    return arm.partition(":")[0]


def twin_of(arm: str) -> str:
    """Return the name of the A/A arm: a second, separately started copy of the arm."""
    return f"{arm}:{AGAIN}"


def with_twin(arms: Sequence[str], subject: str) -> list[str]:
    """Add the A/A arm of the subject, half-way round the order of measurement.

    Next to its twin it would be closer in time than the other arms are, and its noise would be too small.
    """
    twin = twin_of(subject)
    if subject not in arms or twin in arms:
        return list(arms)
    at = (list(arms).index(subject) + 1 + len(arms) // 2) % len(arms)
    return [*arms[:at], twin, *arms[at:]]
