"""What a run came to: samples by row and arm, their medians and spread, the paired ratios, and whether goals are met.

A ratio is taken within a round, between two arms measured moments apart, and then the median over rounds: a machine
that slows down for a minute moves both arms of a pair.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field

from benchmarks.arms import LIMIT
from benchmarks.goals import BEST, LOOP_GOALS, Goals
from benchmarks.trial import IN_PERCENT, Sample, more_is_better

__all__ = ["Results", "Spread", "Verdict"]

LEAST_PERCENT = 0.1


@dataclass(frozen=True, slots=True)
class Spread:
    """A median with the quartiles around it (with fewer than four values: the extremes)."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        known = sorted(values)
        if len(known) < 4:
            return cls(statistics.median(known), known[0], known[-1])
        low, median, high = statistics.quantiles(known, n=4, method="inclusive")
        return cls(median, low, high)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One row judged: the ratio to each other arm (above 1: the subject is cheaper), the goal, and who is ahead."""

    ratios: dict[str, Spread]
    best: str | None  # the cheapest rival
    goal: float | None
    met: bool | None  # None: no goal, or what it is held against was not measured
    own: Spread | None  # how many times the subject's own row it is held against; the goal is then a most, not a least
    ahead: tuple[str, ...]  # the rivals that are cheaper than the subject


@dataclass(slots=True)
class Results:
    """Samples as they come. `rounds[row][round][arm]` is one of them."""

    arms: list[str]
    goals: Goals = LOOP_GOALS
    rounds: dict[str, dict[int, dict[str, Sample]]] = field(default_factory=dict)
    failures: dict[tuple[str, str], str] = field(default_factory=dict)  # (arm, row) -> the last error

    def add(self, row: str, number: int, arm: str, sample: Sample) -> None:
        self.rounds.setdefault(row, {}).setdefault(number, {})[arm] = sample

    @property
    def rows(self) -> list[str]:
        return list(self.rounds)

    @property
    def subject(self) -> str:
        """The arm that is judged: the goals', or the last one when it is not there."""
        return self.goals.subject if self.goals.subject in self.arms else self.arms[-1]

    def samples(self, row: str, arm: str) -> list[Sample]:
        return [arms[arm] for arms in self.rounds[row].values() if arm in arms]

    def cost_ns(self, row: str, arm: str) -> Spread | None:
        return _spread(sample.cost_ns for sample in self.samples(row, arm))

    def measured(self, row: str, arm: str, name: str) -> Spread | None:
        """The spread of `rate_per_s`, `p50_us` or `p99_us`."""
        values = (getattr(sample, name) for sample in self.samples(row, arm))
        return _spread(value for value in values if value is not None)

    def has_client(self, row: str) -> bool:
        return any(sample.rate_per_s is not None for arms in self.rounds[row].values() for sample in arms.values())

    def ratio(self, row: str, other: str) -> Spread | None:
        """The other arm's cost over the subject's, paired by round."""
        return self.paired(row, other, self.subject)

    def paired(self, row: str, arm: str, base: str, is_difference: bool = False) -> Spread | None:
        """One arm's cost over another's (a gain: the other's over it), or how much it is beyond that, by round."""
        pairs = [arms for arms in self.rounds[row].values() if arm in arms and base in arms]
        if is_difference:
            return _spread(arms[arm].cost_ns - arms[base].cost_ns for arms in pairs)
        return _spread(_over(row, arms[arm].cost_ns, arms[base].cost_ns) for arms in pairs)

    def own_ratio(self, row: str, base: str) -> Spread | None:
        """The subject's cost on one row over its cost on another, paired by round."""
        rounds, others, subject = self.rounds[row], self.rounds.get(base, {}), self.subject
        pairs = [(arms, others[number]) for number, arms in rounds.items() if number in others]
        known = ((arms[subject], other[subject]) for arms, other in pairs if subject in arms and subject in other)
        return _spread(sample.cost_ns / max(other.cost_ns, 1e-9) for sample, other in known)

    def best(self, row: str) -> str | None:
        """The rival that costs least on the row."""
        costs = {arm: cost.median for arm in self.arms if self._rivals(arm) and (cost := self.cost_ns(row, arm))}
        first = max if more_is_better(row) else min
        return first(costs, key=costs.__getitem__) if costs else None

    def reference(self, row: str) -> str | None:
        """The arm that the row's goal is a ratio to."""
        return self.best(row) if self.goals.reference == BEST else self.goals.reference

    def verdict(self, row: str) -> Verdict:
        others = [arm for arm in [*self.arms, LIMIT] if arm != self.subject]
        ratios = {arm: ratio for arm in others if (ratio := self.ratio(row, arm)) is not None}
        rivals = [] if row in self.goals.beside else [arm for arm in ratios if self._rivals(arm)]
        ahead = tuple(arm for arm in rivals if ratios[arm].median < 1)
        if row in self.goals.own:
            base, most = self.goals.own[row]
            own = self.own_ratio(row, base)
            return Verdict(ratios, self.best(row), most, None if own is None else own.median < most, own, ahead)
        goal, to = self.goals.of(row), ratios.get(self.reference(row) or "")
        met = None if goal is None or to is None else to.median >= goal
        return Verdict(ratios, self.best(row), goal, met, None, ahead)

    def _rivals(self, arm: str) -> bool:
        """Whether the arm is somebody else's: neither the limit nor the subject, on whichever loop (`penstock@...`)."""
        return arm not in {LIMIT, self.subject} and arm.partition("@")[0] not in self.goals.ours


def _over(row: str, cost: float, base: float) -> float:
    """How many times one is the other; two shares that are nothing are equal."""
    least = LEAST_PERCENT if row.endswith(IN_PERCENT) else 1e-9
    cost, base = max(cost, least), max(base, least)
    return base / cost if more_is_better(row) else cost / base


def _spread(values: Iterable[float]) -> Spread | None:
    known = list(values)
    return Spread.of(known) if known else None
