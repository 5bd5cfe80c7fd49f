"""A verdict is given only where an interval clears the noise floor, which the A/A arm shows."""

from __future__ import annotations

from enum import StrEnum

from benchmarks.method.interval import Interval

__all__ = ["Outcome", "Verdict", "compare", "noise_floor", "outcome"]


class Verdict(StrEnum):
    """The standing of the subject beside another arm on one row."""

    AHEAD = "ahead"
    BEHIND = "behind"
    LEVEL = "level"  # the interval does not clear the noise floor
    NOT_JUDGED = "not judged"  # no A/A arm, or too few rounds


class Outcome(StrEnum):
    """The outcome of a goal on one row."""

    MET = "met"
    MISSED = "missed"
    OPEN = "open"  # the interval does not clear the noise floor
    NOT_JUDGED = "not judged"  # no A/A arm, or too few rounds


def noise_floor(again: Interval | None) -> float | None:
    """Return the factor, at least 1, by which two copies of one arm differ on a row.

    `again` is the interval of the paired ratios of the A/A arm. None: no A/A arm, or too few pairs.
    """
    if again is None or not again.is_enough:
        return None
    return max(1.0, again.high, 1 / max(again.low, 1e-9))


def compare(ratio: Interval | None, floor: float | None) -> Verdict:
    """Judge the subject by the other arm's cost over the subject's: above 1, the subject is cheaper."""
    if ratio is None or floor is None or not ratio.is_enough:
        return Verdict.NOT_JUDGED
    if ratio.low > floor:
        return Verdict.AHEAD
    return Verdict.BEHIND if ratio.high < 1 / floor else Verdict.LEVEL


def outcome(margin: Interval | None, floor: float | None) -> Outcome:
    """Judge a goal by its margin: how many times better than the bound the measured value is."""
    if margin is None or floor is None or not margin.is_enough:
        return Outcome.NOT_JUDGED
    if margin.low >= floor:
        return Outcome.MET
    return Outcome.MISSED if margin.high < 1 / floor else Outcome.OPEN
