"""The budget of bytes: exact, fair, and bounded for those that obey it."""

import importlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock._core.limits.budget import Budget

# seams.pyx, which has no types for Python
seams: Any = importlib.import_module("penstock._core.seams")
steady = settings(derandomize=True, deadline=None, max_examples=200, database=None)
HIGH_BYTES, LOW_BYTES = 10_000, 8_000


class Holder:
    """Has bytes, and counts how often it was told to look."""

    def __init__(self, budget: Budget) -> None:
        self.told = 0
        self.stake = seams.Stake(budget, self)
        self.size_bytes = 0

    def set(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.stake.set(size_bytes)

    def _budget_changed(self) -> None:
        self.told += 1


def made(count: int) -> tuple[Budget, list[Holder]]:
    budget = Budget()
    budget.set_marks(HIGH_BYTES, LOW_BYTES)
    return budget, [Holder(budget) for _ in range(count)]


def assert_fair(budget: Budget, holders: list[Holder]) -> None:
    total = sum(holder.size_bytes for holder in holders)
    assert budget.total == total
    paused = [holder for holder in holders if holder.stake.paused]
    free = [holder for holder in holders if not holder.stake.paused]
    assert budget.paused_now == len(paused)
    if total <= LOW_BYTES:
        assert not paused
    if paused and free:
        # Equal to within a size class: a quarter.
        heaviest = max(holder.size_bytes for holder in free)
        assert heaviest < 1.25 * min(holder.size_bytes for holder in paused) + 1


@steady
@given(st.lists(st.tuples(st.integers(0, 9), st.one_of(st.integers(0, 3000), st.just(0))), max_size=200))
def test_nobody_is_paused_while_a_heavier_one_is_not(steps: list[tuple[int, int]]) -> None:
    budget, holders = made(10)
    for name, size_bytes in steps:
        grew = size_bytes > holders[name].size_bytes
        holders[name].set(size_bytes)
        assert_fair(budget, holders)
        if grew and budget.total > HIGH_BYTES:
            assert budget.paused_now
    for holder in holders:
        holder.set(0)
    assert (budget.total, budget.paused_now) == (0, 0)


@steady
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 900)), max_size=300))
def test_writers_that_obey_pass_the_mark_by_one_write_each_at_most(steps: list[tuple[int, int]]) -> None:
    budget, holders = made(10)
    for name, growth_bytes in steps:
        if not holders[name].stake.paused:
            holders[name].set(holders[name].size_bytes + growth_bytes)
    assert budget.total <= HIGH_BYTES + 10 * 900
    assert budget.most == budget.total


def test_the_heaviest_is_paused_first_and_all_are_resumed_at_the_low_mark() -> None:
    budget, (heavy, middle, light) = made(3)
    heavy.set(6000)
    middle.set(3000)
    light.set(900)
    assert budget.paused_now == 0
    light.set(1100)
    assert [holder.stake.paused for holder in (heavy, middle, light)] == [True, False, False]
    light.set(1200)
    assert [holder.stake.paused for holder in (heavy, middle, light)] == [True, True, False]
    heavy.set(4000)
    assert heavy.stake.paused
    heavy.set(3700)
    assert budget.total == 7900
    assert not any(holder.stake.paused for holder in (heavy, middle, light))
    assert (heavy.told, middle.told, light.told) == (2, 2, 0)


def test_one_that_is_empty_is_resumed_whatever_the_others_keep() -> None:
    budget, (dead, alive) = made(2)
    dead.set(20_000)
    alive.set(50)
    assert dead.stake.paused
    assert alive.stake.paused
    alive.set(0)
    assert not alive.stake.paused
    assert dead.stake.paused


def test_a_paused_one_that_becomes_the_lighter_one_is_resumed() -> None:
    budget, (one, other, third) = made(3)
    one.set(6000)
    other.set(3000)
    third.set(2900)
    assert [holder.stake.paused for holder in (one, other, third)] == [True, False, False]
    one.set(2200)
    assert LOW_BYTES < budget.total < HIGH_BYTES
    assert budget.paused_now == 0


def test_above_the_mark_it_changes_places_with_the_heaviest() -> None:
    budget, (one, other, third) = made(3)
    one.set(8000)
    other.set(5900)
    third.set(4000)
    assert [holder.stake.paused for holder in (one, other, third)] == [True, True, False]
    one.set(2200)
    assert [holder.stake.paused for holder in (one, other, third)] == [False, True, True]


def test_closing_gives_the_bytes_back_and_resumes_others() -> None:
    budget, (one, other) = made(2)
    one.set(9000)
    other.set(2000)
    assert one.stake.paused
    other.stake.close()
    assert budget.total == 9000
    other.size_bytes = 0
    one.stake.close()
    assert (budget.total, budget.paused_now) == (0, 0)


def test_a_budget_without_marks_only_counts() -> None:
    budget = Budget()
    holder = Holder(budget)
    holder.set(1 << 40)
    assert (budget.total, budget.paused_now, budget.marks) == (1 << 40, 0, None)


def test_marks_are_high_and_four_fifths_of_it() -> None:
    budget = Budget()
    budget.set_marks(1000)
    assert budget.marks == (1000, 800)
    with pytest.raises(ValueError, match=r"high \(10\) must be >= low \(20\)"):
        budget.set_marks(10, 20)


def test_size_classes_grow_with_size_and_differ_by_a_quarter() -> None:
    budget = Budget()
    holder = Holder(budget)
    last_rank, last_bytes = 0, 0
    for size_bytes in [*range(1, 5000), *(7**power for power in range(5, 21))]:
        holder.set(size_bytes)
        assert holder.stake.rank >= last_rank
        if holder.stake.rank == last_rank:
            assert size_bytes < 1.25 * last_bytes + 1
        else:
            last_rank, last_bytes = holder.stake.rank, size_bytes
