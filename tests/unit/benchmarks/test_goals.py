"""The goals file: each entry is well formed, and names rows and arms that are measured."""

from fnmatch import fnmatchcase

import pytest
from benchmarks.method.goals import BEST, METRICS, OPERATORS, UNITS, Goal, Goals
from benchmarks.method.trial import LIMIT

pytest.importorskip("uvicorn")
from benchmarks.counts.loads import SERVED
from benchmarks.net.suite import has_tls
from benchmarks.parts import PARTS

ENTRIES = [(name, goal) for name in PARTS for goal in Goals.load(name).entries]


def rows_of(part: str) -> list[str]:
    return [row for trial in PARTS[part].plan(False).trials for row in trial.rows]


@pytest.mark.parametrize(("part", "goal"), ENTRIES, ids=lambda value: value if isinstance(value, str) else value.row)
def test_a_goal_is_well_formed(part: str, goal: Goal) -> None:
    assert goal.metric in METRICS and goal.operator in OPERATORS and goal.unit in UNITS and goal.source
    named = {arm for arm in (goal.arm, goal.against, goal.if_ahead) if arm}
    assert named <= {*PARTS[part].arms, BEST, LIMIT}
    assert bool(goal.against or goal.against_row) == (goal.metric not in ("cost", "calls"))


@pytest.mark.parametrize("part", PARTS)
def test_every_pattern_of_a_goal_fits_a_row(part: str) -> None:
    rows, goals = rows_of(part), Goals.load(part)
    if any("NumPy" in row for row in rows) or part != "executors":
        patterns = [*(goal.row for goal in goals.entries), *goals.beside, *goals.short]
        patterns += [goal.against_row for goal in goals.entries if goal.against_row]
        patterns += [*goals.not_plain, *(cause.row for cause in goals.causes)]
        assert not [pattern for pattern in patterns if not any(fnmatchcase(row, pattern) for row in rows)]


@pytest.mark.parametrize("part", PARTS)
def test_the_judged_arm_is_one_of_the_part(part: str) -> None:
    goals = Goals.load(part)
    assert {goals.subject, *goals.shown} <= {*PARTS[part].arms}
    assert goals.reference in {*PARTS[part].arms, BEST}
    assert len(goals.short) <= 10


def test_of_several_entries_with_one_base_the_first_counts() -> None:
    loops = Goals.load("loops")
    assert [goal.value for goal in loops.of("call_soon chain, 0 arguments")] == [1.8, 0.97]
    assert [goal.value for goal in loops.of("echo protocol 10 x 1 KiB")] == [1.15, 0.9, 0.97]
    assert [goal.value for goal in loops.of("run_in_executor")] == [0.97]


@pytest.mark.parametrize("row", ["TLS: echo 10 x 1 KiB", "UDP: echo 10 x 1 KiB", "pipe: a MiB", "spawn of true"])
def test_rows_of_io_are_in_no_mean_over_the_rows_of_loops(row: str) -> None:
    assert row in rows_of("io") or not has_tls()
    assert row not in rows_of("loops")
    assert not Goals.load("io").means


@pytest.mark.parametrize("goal", [goal for goal in Goals.load("io").entries if goal.metric == "calls"], ids=str)
def test_the_calls_of_a_goal_are_counted(goal: Goal) -> None:
    assert any(fnmatchcase(row, goal.row) for row in SERVED)


def test_every_served_row_that_is_counted_is_measured_too() -> None:
    if has_tls():
        assert set(SERVED) <= {*rows_of("loops"), *rows_of("io")}


def test_every_goal_of_a_mean_names_an_arm() -> None:
    assert {mean.against for name in PARTS for mean in Goals.load(name).means} <= {*PARTS["loops"].arms, BEST}
