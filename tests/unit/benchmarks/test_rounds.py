"""The rounds of a run: their number within a budget, duets, and arms that fail."""

from collections.abc import Mapping

import pytest

pytest.importorskip("uvicorn")
from benchmarks import compare
from benchmarks.method.goals import Goals
from benchmarks.method.interval import LEAST_VALUES
from benchmarks.method.results import Results
from benchmarks.method.trial import Pair, Sample, Trial
from benchmarks.parts import Plan

ROW = "a row"
ARMS = ["mine", "other", "mine:again"]


def results() -> Results:
    return Results(list(ARMS), Goals("mine", ("mine",), "other"))


@pytest.mark.parametrize(
    ("rounds", "taken_s", "fits"),
    [(0, 0, True), (LEAST_VALUES - 1, 9999, True), (LEAST_VALUES, 500, True), (9, 540, True), (10, 600, False)],
)
def test_a_budget_has_at_least_five_rounds_and_none_that_ends_after_it(rounds: int, taken_s: float, fits: bool) -> None:
    assert compare._fits(rounds, taken_s, 10) is fits


def test_a_budget_that_is_spent_ends_after_five_rounds() -> None:
    found, ended = results(), []
    trial = Trial((ROW,), lambda arm: {ROW: Sample(1.0)})
    plan = Plan([trial], "nowhere", lambda: ended.append(ROW))
    assert compare.interleave([trial], plan, 99, found, minutes=0) == LEAST_VALUES == len(ended)
    assert [len(found.samples(ROW, arm)) for arm in ARMS] == [LEAST_VALUES] * 3


def test_a_duet_pairs_the_judged_arm_with_each_other_one() -> None:
    played: list[tuple[str, str]] = []

    def duet(subject: str, other: str) -> Pair:
        played.append((subject, other))
        return Pair(Sample(float(len(played))), Sample(10.0 * len(played)))

    def never(arm: str) -> Mapping[str, Sample]:
        raise AssertionError(arm)

    found, trial = results(), Trial((ROW,), never, duet=duet)
    compare.interleave([trial], Plan([trial], "nowhere"), 1, found)
    assert played == [("mine", "other"), ("mine", "mine:again")]
    assert found.rounds[ROW][0] == {
        "other": Sample(10.0, beside_ns=1.0),
        "mine:again": Sample(20.0, beside_ns=2.0),
        "mine": Sample(1.5),
    }


def test_an_arm_that_fails_leaves_the_others_their_row() -> None:
    tried = []

    def run(arm: str) -> Mapping[str, Sample]:
        tried.append(arm)
        if arm == "other":
            raise RuntimeError("it broke")
        return {ROW: Sample(1.0)}

    found, trial = results(), Trial((ROW,), run)
    compare.interleave([trial], Plan([trial], "nowhere"), 5, found)
    assert found.failures == {("other", ROW): "it broke"}
    assert (tried.count("mine"), tried.count("other")) == (5, 2)
