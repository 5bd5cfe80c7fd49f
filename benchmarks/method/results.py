"""The results of a run: samples by row, round and arm, their paired ratios, and the verdicts on them.

A ratio is taken within a round, between two arms measured moments apart, and then the median over rounds: a machine
that slows down for a minute moves both arms of a pair.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from benchmarks.method.goals import BEST, Goal, Goals, MeanGoal
from benchmarks.method.interval import Interval
from benchmarks.method.mean import geometric_mean
from benchmarks.method.trial import IN_PERCENT, LIMIT, Sample, base_arm, more_is_better, twin_of
from benchmarks.method.verdict import Outcome, Verdict, compare, noise_floor, outcome

__all__ = ["Judged", "JudgedMean", "Results"]

LEAST_PERCENT = 0.1
WITHIN = {"<": operator.lt, "<=": operator.le, ">=": operator.ge}
LEAST = 1e-9
TRIES = 2  # of an arm that fails on a row, lest each of its failures cost a timeout
Both = tuple[Sample, Sample]


@dataclass(frozen=True, slots=True)
class Judged:
    """A goal on one row: the measured value and the outcome."""

    goal: Goal
    row: str
    found: Interval
    outcome: Outcome

    @property
    def is_reached(self) -> bool:
        """Whether the median alone is within the bound, whatever the noise."""
        return bool(WITHIN[self.goal.operator](self.found.median, self.goal.bound))


@dataclass(frozen=True, slots=True)
class JudgedMean:
    """A goal of a geometric mean: the measured mean over `rows` rows, the A/A arm's mean, and the outcome."""

    goal: MeanGoal
    rows: int
    found: Interval
    noise: Interval | None
    outcome: Outcome

    @property
    def is_reached(self) -> bool:
        """Whether the median alone reaches the least value, whatever the noise."""
        return self.found.median >= self.goal.value


@dataclass(slots=True)
class Results:
    """The samples of a run. `rounds[row][round][arm]` is one of them."""

    arms: list[str]
    goals: Goals
    rounds: dict[str, dict[int, dict[str, Sample]]] = field(default_factory=dict)
    failures: dict[tuple[str, str], str] = field(default_factory=dict)  # (arm, row) -> the last error
    failed: Counter[tuple[str, str]] = field(default_factory=Counter, compare=False)
    calls: dict[tuple[str, str], float] = field(default_factory=dict, compare=False)  # (row, arm) -> system calls

    def add(self, row: str, number: int, arm: str, sample: Sample) -> None:
        self.rounds.setdefault(row, {}).setdefault(number, {})[arm] = sample

    def fail(self, arm: str, row: str, error: str) -> None:
        """Note that an arm has failed on a row."""
        self.failures[arm, row] = error
        self.failed[arm, row] += 1

    def is_given_up(self, arm: str, row: str) -> bool:
        """Return whether an arm has failed on a row too often to be tried again."""
        return self.failed[arm, row] >= TRIES

    @property
    def has_rival(self) -> bool:
        """Whether there is another arm than the judged one."""
        return any(arm != self.subject for arm in self.arms)

    @property
    def rows(self) -> list[str]:
        return list(self.rounds)

    @property
    def subject(self) -> str:
        """The arm that is judged: that of the goals, or the last one where it was not measured."""
        if self.goals.subject in self.arms:
            return self.goals.subject
        return [arm for arm in self.arms if base_arm(arm) == arm or self.arms == [arm]][-1]

    @property
    def twin(self) -> str:
        """The A/A arm."""
        return twin_of(self.subject)

    @property
    def columns(self) -> list[str]:
        """The arms with a column of costs: all but the A/A arm, and the limit where it was measured."""
        limited = any(self.samples(row, LIMIT) for row in self.rows)
        return [*(arm for arm in self.arms if arm != self.twin), *([LIMIT] if limited else [])]

    @property
    def has_twin(self) -> bool:
        """Whether the run has an A/A arm."""
        return any(self.samples(row, self.twin) for row in self.rows)

    def samples(self, row: str, arm: str) -> list[Sample]:
        return [arms[arm] for arms in self.rounds[row].values() if arm in arms]

    def cost(self, row: str, arm: str) -> Interval | None:
        """Return the interval of the arm's cost, in ns, bytes or percent by the row's name."""
        return Interval.of(sample.cost_ns for sample in self.samples(row, arm))

    def measured(self, row: str, arm: str, name: str) -> Interval | None:
        """Return the interval of `rate_per_s`, `p50_us` or `p99_us`."""
        values = (getattr(sample, name) for sample in self.samples(row, arm))
        return Interval.of(value for value in values if value is not None)

    def has_client(self, row: str) -> bool:
        return any(sample.rate_per_s is not None for arms in self.rounds[row].values() for sample in arms.values())

    # --- pairs ------------------------------------------------------------------------------------------------------

    def ratio(self, row: str, other: str) -> Interval | None:
        """Return the other arm's cost over the subject's, paired by round: above 1, the subject is cheaper."""
        return self.paired(row, other, self.subject)

    def paired(self, row: str, arm: str, base: str, base_row: str = "") -> Interval | None:
        """Return one arm's cost over another's, or over that of another row; of goodput, the other way round."""
        pairs = self._pairs(row, arm, base, base_row or row)
        return Interval.of(_over(row, one.cost_ns, other.cost_ns) for one, other in pairs)

    def extra(self, row: str, arm: str, base: str, base_row: str = "") -> Interval | None:
        """Return one arm's cost minus another's, or minus that of another row, paired by round."""
        pairs = self._pairs(row, arm, base, base_row or row)
        return Interval.of(one.cost_ns - other.cost_ns for one, other in pairs)

    def _pairs(self, row: str, arm: str, base: str, base_row: str) -> Iterator[Both]:
        for _, one, other in self._numbered_pairs(row, arm, base, base_row):
            yield one, other

    def _numbered_pairs(self, row: str, arm: str, base: str, base_row: str) -> Iterator[tuple[int, Sample, Sample]]:
        bases = self.rounds.get(base_row, {})
        for number, arms in self.rounds[row].items():
            if arm in arms and base in bases.get(number, {}):
                one, other = arms[arm], bases[number][base]
                if row == base_row and self.subject in (arm, base):
                    one, other = _together(one, other)
                yield number, one, other

    # --- judgement --------------------------------------------------------------------------------------------------

    def noise(self, row: str) -> Interval | None:
        """Return the interval of the A/A arm: the subject's cost over that of its second copy."""
        return self.ratio(row, self.twin)

    def floor(self, row: str) -> float | None:
        """Return the noise floor of a row, None where nothing can be judged."""
        return noise_floor(self.noise(row))

    def rivals(self, row: str) -> list[str]:
        """Return the arms that the subject is compared with on a row."""
        if row in self.goals.beside:
            return []
        return [arm for arm in self._others() if self.samples(row, arm)]

    def best(self, row: str) -> str | None:
        """Return the rival with the best median cost."""
        costs = {arm: cost.median for arm in self._others() if (cost := self.cost(row, arm))}
        first = max if more_is_better(row) else min
        return first(costs, key=costs.__getitem__) if costs else None

    def _others(self) -> list[str]:
        arms = (arm for arm in self.arms if arm not in {self.subject, self.twin})
        return [arm for arm in arms if base_arm(arm).partition("@")[0] not in self.goals.ours]

    def verdicts(self, row: str) -> dict[str, Verdict]:
        """Return the subject's verdict beside each rival."""
        floor = self.floor(row)
        return {arm: compare(self.ratio(row, arm), floor) for arm in self.rivals(row)}

    def better_medians(self, row: str) -> list[str]:
        """Return the rivals whose median is better than the subject's, whatever the noise."""
        ratios = {arm: self.ratio(row, arm) for arm in self.rivals(row)}
        return [arm for arm, ratio in ratios.items() if ratio is not None and ratio.median < 1]

    def judged(self, row: str) -> list[Judged]:
        """Judge every goal of a row that was measured on both sides."""
        return [found for goal in self.goals.of(row) if (found := self._judge(goal, row)) is not None]

    def _judge(self, goal: Goal, row: str) -> Judged | None:
        found = FOUND[goal.metric](self, goal, row)
        if found is None or (goal.if_ahead and not self._is_cheaper(row, goal.if_ahead, goal.against)):
            return None
        if goal.metric == "calls":  # a count has no noise
            is_met = WITHIN[goal.operator](found.median, goal.bound)
            return Judged(goal, row, found, Outcome.MET if is_met else Outcome.MISSED)
        return Judged(goal, row, found, outcome(self._margin(goal, row, found), self.floor(row)))

    def _margin(self, goal: Goal, row: str, found: Interval) -> Interval:
        """Return how many times better than the bound the value is."""
        if goal.operator == ">=":
            return found.times(1 / goal.bound)
        if goal.metric == "extra":
            # A difference may be zero or negative: compare the whole costs that the bound and the samples stand for.
            base = self.cost(goal.against_row or row, goal.against or goal.arm)
            base_cost = base.median if base else 0.0
            return found.plus(base_cost).inverse(LEAST).times(base_cost + goal.bound)
        return found.inverse(LEAST).times(goal.bound)

    def judged_means(self) -> list[JudgedMean]:
        """Judge every goal of a geometric mean over the plain rows."""
        return [found for goal in self.goals.means if (found := self._judge_mean(goal)) is not None]

    def _judge_mean(self, goal: MeanGoal) -> JudgedMean | None:
        ratios = self._plain_ratios(goal.against)
        found, noise = geometric_mean(ratios), geometric_mean(self._plain_ratios(self.twin))
        if found is None:
            return None
        floor = noise_floor(noise)
        return JudgedMean(goal, len(ratios), found, noise, outcome(found.times(1 / goal.value), floor))

    def _plain_ratios(self, against: str) -> list[dict[int, float]]:
        """Return, for each plain row with both arms, the ratio of each round."""
        rows = [row for row in self.rows if self.goals.is_plain(row) and row not in self.goals.beside]
        found = [self._ratios(row, self.best(row) or against if against == BEST else against) for row in rows]
        return [ratios for ratios in found if ratios]

    def _ratios(self, row: str, other: str) -> dict[int, float]:
        pairs = self._numbered_pairs(row, other, self.subject, row)
        return {number: _over(row, one.cost_ns, base.cost_ns) for number, one, base in pairs}

    def _is_cheaper(self, row: str, arm: str, other: str) -> bool:
        ratio = self.paired(row, arm, other)
        return ratio is not None and ratio.median < 1

    def _speedup(self, goal: Goal, row: str) -> Interval | None:
        against = self.best(row) if goal.against == BEST else goal.against
        return None if against is None else self.paired(row, against, goal.arm)

    def _ratio(self, goal: Goal, row: str) -> Interval | None:
        return self.paired(row, goal.arm, goal.against or goal.arm, goal.against_row)

    def _extra(self, goal: Goal, row: str) -> Interval | None:
        return self.extra(row, goal.arm, goal.against or goal.arm, goal.against_row)

    def _cost(self, goal: Goal, row: str) -> Interval | None:
        return self.cost(row, goal.arm)

    def _calls(self, goal: Goal, row: str) -> Interval | None:
        calls = self.calls.get((row, goal.arm))
        return None if calls is None else Interval(calls, calls, calls, 1)


FOUND: dict[str, Callable[[Results, Goal, str], Interval | None]] = {
    "speedup": Results._speedup,
    "ratio": Results._ratio,
    "extra": Results._extra,
    "cost": Results._cost,
    "calls": Results._calls,
}


def _together(one: Sample, other: Sample) -> Both:
    """Take the judged arm's cost from the duet where one of the samples is of a duet with it."""
    if one.beside_ns is not None:
        return one, replace(other, cost_ns=one.beside_ns)
    if other.beside_ns is not None:
        return replace(one, cost_ns=other.beside_ns), other
    return one, other


def _over(row: str, cost: float, base: float) -> float:
    """Return one cost over the other; two shares of nothing are equal."""
    least = LEAST_PERCENT if row.endswith(IN_PERCENT) else LEAST
    cost, base = max(cost, least), max(base, least)
    return base / cost if more_is_better(row) else cost / base
