"""The benchmarks' method: intervals, the noise floor of the A/A arm, verdicts and outcomes of goals."""

import random
from collections.abc import Sequence

import pytest
from benchmarks.method.goals import BEST, Goal, Goals, MeanGoal
from benchmarks.method.interval import LEAST_VALUES, Interval
from benchmarks.method.mean import geometric_mean
from benchmarks.method.results import Results
from benchmarks.method.trial import Sample, base_arm, twin_of, with_twin
from benchmarks.method.verdict import Outcome, Verdict, compare, noise_floor, outcome

ROW = "a row"
GOODPUT = "a load: goodput, %"


def of(values: Sequence[float]) -> Interval:
    found = Interval.of(values)
    assert found is not None
    return found


def normal(seed: int, count: int, mean: float, deviation: float) -> list[float]:
    dice = random.Random(seed)
    return [dice.gauss(mean, deviation) for _ in range(count)]


def results(row: str = ROW, *goals: Goal, **costs: Sequence[float]) -> Results:
    """A run of the arms `mine`, `mine:again` (as `again`) and `other`."""
    arms = {"mine:again" if arm == "again" else arm: found for arm, found in costs.items()}
    found = Results(list(arms), Goals("mine", ("mine",), "other", goals))
    for arm, values in arms.items():
        for number, value in enumerate(values):
            found.add(row, number, arm, Sample(value))
    return found


# --- intervals --------------------------------------------------------------------------------------------------------


def test_the_interval_covers_the_true_median_about_as_often_as_it_says() -> None:
    intervals = [of(normal(seed, 15, 10, 2)) for seed in range(200)]
    covering = sum(found.low <= 10 <= found.high for found in intervals)
    assert 0.88 <= covering / len(intervals) <= 0.99


def test_the_interval_narrows_with_more_values() -> None:
    assert of(normal(1, 200, 10, 2)).half < of(normal(1, 10, 10, 2)).half


def test_equal_values_give_equal_intervals_in_any_order() -> None:
    values = normal(3, 11, 10, 2)
    assert of(values) == of(values[::-1])


def test_five_values_give_the_range_of_all() -> None:
    assert of([3, 1, 4, 1.5, 9]) == Interval(3, 1, 9, 5)


def test_no_values_give_no_interval() -> None:
    assert Interval.of([]) is None


def test_an_inverse_swaps_the_ends() -> None:
    assert Interval(2, 1, 4, 5).inverse() == Interval(0.5, 0.25, 1, 5)


# --- the noise floor and verdicts -------------------------------------------------------------------------------------


def test_the_floor_is_the_larger_of_both_directions() -> None:
    assert noise_floor(Interval(1, 0.8, 1.1, 5)) == pytest.approx(1.25)
    assert noise_floor(Interval(1, 0.95, 1.4, 5)) == pytest.approx(1.4)


def test_the_floor_is_never_below_one() -> None:
    assert noise_floor(Interval(1, 1, 1, 5)) == 1


@pytest.mark.parametrize("again", [None, Interval(1, 0.9, 1.1, LEAST_VALUES - 1)])
def test_without_an_a_a_arm_of_enough_rounds_nothing_is_judged(again: Interval | None) -> None:
    floor = noise_floor(again)
    assert compare(Interval(9, 8, 10, 20), floor) is Verdict.NOT_JUDGED
    assert outcome(Interval(9, 8, 10, 20), floor) is Outcome.NOT_JUDGED


def test_too_few_pairs_are_not_judged() -> None:
    assert compare(Interval(9, 8, 10, LEAST_VALUES - 1), 1.1) is Verdict.NOT_JUDGED


@pytest.mark.parametrize("seed", range(50))
def test_a_pair_of_one_arm_is_never_ahead_or_behind(seed: int) -> None:
    dice = random.Random(seed)
    again = of([dice.lognormvariate(dice.choice((-0.5, 0, 0.5)), 0.3) for _ in range(dice.choice((5, 7, 20)))])
    floor = noise_floor(again)
    assert compare(again, floor) is Verdict.LEVEL
    assert compare(again.inverse(), floor) is Verdict.LEVEL


@pytest.mark.parametrize(
    ("ratio", "verdict"),
    [
        (Interval(1.5, 1.3, 1.7, 5), Verdict.AHEAD),
        (Interval(1.5, 1.1, 1.7, 5), Verdict.LEVEL),  # the median clears the floor, the interval does not
        (Interval(1.1, 1.05, 1.15, 5), Verdict.LEVEL),  # the interval clears 1, not the floor
        (Interval(0.7, 0.6, 0.8, 5), Verdict.BEHIND),
        (Interval(0.7, 0.6, 0.9, 5), Verdict.LEVEL),
    ],
)
def test_a_verdict_needs_the_whole_interval_beyond_the_floor(ratio: Interval, verdict: Verdict) -> None:
    assert compare(ratio, 1.2) is verdict


@pytest.mark.parametrize(
    ("margin", "found"),
    [
        (Interval(1.5, 1.3, 1.7, 5), Outcome.MET),
        (Interval(1.5, 1.1, 1.7, 5), Outcome.OPEN),
        (Interval(0.7, 0.6, 0.8, 5), Outcome.MISSED),
        (Interval(0.9, 0.85, 0.95, 5), Outcome.OPEN),
    ],
)
def test_a_goal_is_met_or_missed_only_beyond_the_floor(margin: Interval, found: Outcome) -> None:
    assert outcome(margin, 1.2) is found


# --- results ----------------------------------------------------------------------------------------------------------


def test_ratios_are_paired_within_a_round() -> None:
    slow_minute = results(mine=[1, 2, 10, 3, 1], other=[2, 4, 20, 6, 2])
    assert slow_minute.ratio(ROW, "other") == Interval(2, 2, 2, 5)


def test_a_round_without_one_arm_is_no_pair() -> None:
    found = results(mine=[1, 1, 1], other=[2, 2]).ratio(ROW, "other")
    assert found is not None and found.count == 2


def test_a_clear_difference_is_ahead_and_the_same_within_noise_is_level() -> None:
    other, mine = [2.0, 2.1, 2.2, 2.1, 2.0], [1.0] * 5
    quiet = results(mine=mine, again=[1.0, 1.01, 0.99, 1.0, 1.02], other=other)
    noisy = results(mine=mine, again=[1.0, 2.5, 0.5, 1.0, 1.5], other=other)
    assert quiet.verdicts(ROW) == {"other": Verdict.AHEAD}
    assert noisy.verdicts(ROW) == {"other": Verdict.LEVEL}


def test_the_a_a_arm_is_no_rival_and_has_no_column() -> None:
    found = results(mine=[1] * 5, again=[0.5] * 5, other=[2] * 5)
    assert found.rivals(ROW) == ["other"]
    assert found.best(ROW) == "other"
    assert found.columns == ["mine", "other"]
    assert not found.better_medians(ROW)


def test_more_goodput_is_ahead() -> None:
    found = results(GOODPUT, mine=[100] * 5, again=[99] * 5, other=[50] * 5)
    assert found.verdicts(GOODPUT) == {"other": Verdict.AHEAD}


@pytest.mark.parametrize(
    ("goal", "mine", "expected"),
    [
        (Goal("*", "speedup", "mine", ">=", 1.5, "here", against="other"), 1.0, Outcome.MET),
        (Goal("*", "speedup", "mine", ">=", 2.5, "here", against="other"), 1.0, Outcome.MISSED),
        (Goal("*", "speedup", "mine", ">=", 2.0, "here", against="other"), 1.0, Outcome.OPEN),
        (Goal("*", "ratio", "mine", "<=", 0.6, "here", against="other"), 1.0, Outcome.MET),
        (Goal("*", "ratio", "mine", "<", 0.4, "here", against="other"), 1.0, Outcome.MISSED),
        (Goal("*", "cost", "mine", "<=", 2, "here", unit="ns"), 1.0, Outcome.MET),
        (Goal("*", "cost", "mine", "<=", 0.5, "here", unit="ns"), 1.0, Outcome.MISSED),
        (Goal("*", "extra", "mine", "<=", 2, "here", against="other"), 3.0, Outcome.MET),
        (Goal("*", "extra", "mine", "<=", 0.5, "here", against="other"), 3.0, Outcome.MISSED),
        (Goal("*", "extra", "mine", "<=", 1.1, "here", against="other"), 3.0, Outcome.OPEN),
    ],
)
def test_each_metric_is_judged_against_its_bound_and_the_noise(goal: Goal, mine: float, expected: Outcome) -> None:
    noise = [1.0, 1.05, 0.96, 1.0, 1.02]
    found = results(ROW, goal, mine=[mine] * 5, again=[mine * each for each in noise], other=[2.0] * 5)
    assert [one.outcome for one in found.judged(ROW)] == [expected]


def test_an_extra_over_another_row_is_paired_by_round() -> None:
    goal = Goal(ROW, "extra", "mine", "<=", 2, "here", against_row="plain")
    found = results(ROW, goal, mine=[3, 13, 4, 5, 6], again=[3, 13, 4, 5, 6])
    for number, value in enumerate([2, 12, 3, 4, 5]):
        found.add("plain", number, "mine", Sample(value))
    (judged,) = found.judged(ROW)
    assert (judged.found, judged.outcome) == (Interval(1, 1, 1, 5), Outcome.MET)
    assert str(goal) == "mine minus its 'plain'"


@pytest.mark.parametrize(("calls", "expected"), [(0.2, Outcome.MET), (0.21, Outcome.MISSED)])
def test_a_goal_of_calls_is_judged_by_the_count(calls: float, expected: Outcome) -> None:
    found = results(ROW, Goal("*", "calls", "mine", "<=", 0.2, "here"), mine=[1.0])
    assert not found.judged(ROW)
    found.calls[ROW, "mine"] = calls
    assert [one.outcome for one in found.judged(ROW)] == [expected]


def test_a_goal_that_holds_where_another_arm_is_cheaper_is_left_out_elsewhere() -> None:
    goal = Goal("*", "ratio", "mine", "<", 1, "here", against="other", if_ahead="third")
    dear = results(ROW, goal, mine=[1] * 5, again=[1] * 5, other=[2] * 5, third=[3] * 5)
    cheap = results(ROW, goal, mine=[1] * 5, again=[1] * 5, other=[2] * 5, third=[1] * 5)
    assert not dear.judged(ROW)
    assert [one.outcome for one in cheap.judged(ROW)] == [Outcome.MET]


def test_the_ratio_of_a_duet_is_to_what_was_measured_beside() -> None:
    found = results(mine=[10.0] * 5)
    for number, beside_ns in enumerate([1.0, 2.0, 4.0, 8.0, 16.0]):
        found.add(ROW, number, "other", Sample(2 * beside_ns, beside_ns=beside_ns))
    assert found.ratio(ROW, "other") == Interval(2, 2, 2, 5)
    assert found.paired(ROW, "mine", "other") == Interval(0.5, 0.5, 0.5, 5)
    assert found.cost(ROW, "mine") == Interval(10, 10, 10, 5)


def test_an_arm_that_fails_on_a_row_again_is_given_up_there() -> None:
    found = results(mine=[1.0])
    tried = []
    for _ in range(4):
        if not found.is_given_up("other", ROW):
            tried.append(ROW)
            found.fail("other", ROW, "it broke")
    assert len(tried) == 2 and found.failures["other", ROW] == "it broke"
    assert not found.is_given_up("other", "another row")


# --- geometric means --------------------------------------------------------------------------------------------------


def by_round(*values: float) -> dict[int, float]:
    return dict(enumerate(values))


def test_the_mean_of_rows_is_that_of_their_medians() -> None:
    found = geometric_mean([by_round(1, 2, 9), by_round(8, 8, 8)])
    assert found is not None
    assert found.median == pytest.approx(4) and found.count == 3
    assert found.low < 4 < found.high


def test_what_moves_all_rows_of_a_round_widens_the_interval_of_the_mean() -> None:
    dice = random.Random(2)
    shifts = [[dice.lognormvariate(0, 0.2) for _ in range(7)] for _ in range(20)]
    apart, together = geometric_mean([by_round(*row) for row in shifts]), geometric_mean([by_round(*shifts[0])] * 20)
    assert apart is not None and together is not None
    assert apart.half < together.half / 2


def test_no_rows_have_no_mean() -> None:
    assert geometric_mean([]) is None


def test_a_mean_is_over_plain_rows_and_takes_the_best_other_of_each() -> None:
    goals = Goals(
        "mine", ("mine",), "a", not_plain=("TLS*",), means=(MeanGoal(BEST, 1.5, "here"), MeanGoal("a", 3, "here"))
    )
    found = Results(["a", "b", "mine", "mine:again"], goals)
    for row, costs in {"one": (2, 8), "two": (8, 2), "TLS": (100, 100)}.items():
        for number in range(5):
            for arm, cost in zip(found.arms, (*costs, 1, 1), strict=True):
                found.add(row, number, arm, Sample(float(cost)))
    judged = found.judged_means()
    assert [(one.rows, round(one.found.median, 6)) for one in judged] == [(2, 2.0), (2, 4.0)]
    assert [one.outcome for one in judged] == [Outcome.MET, Outcome.MET]


# --- the A/A arm ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("subject", ["a", "b", "c", "d", "e"])
def test_the_a_a_arm_is_as_far_from_its_twin_as_can_be(subject: str) -> None:
    arms = with_twin(["a", "b", "c", "d", "e"], subject)
    apart = abs(arms.index(subject) - arms.index(twin_of(subject)))
    assert min(apart, len(arms) - apart) == len(arms) // 2


def test_an_a_a_arm_is_not_added_twice_nor_without_its_subject() -> None:
    assert with_twin(["a", "a:again"], "a") == ["a", "a:again"]
    assert with_twin(["b"], "a") == ["b"]


def test_a_label_is_no_part_of_the_arm() -> None:
    assert base_arm(twin_of("penstock@time")) == "penstock@time"
