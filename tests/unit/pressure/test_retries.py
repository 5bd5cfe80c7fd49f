"""Tests of retry budgets: a share of all requests, random delays, and no retry past the deadline."""

import asyncio

import pytest

from penstock.errors import Overloaded
from penstock.pressure.client.deadline import deadline
from penstock.pressure.client.retry import RetryBudget
from penstock.testing import run

pytestmark = pytest.mark.runner("virtual")


class Flaky:
    """A backend that fails so many times and then answers, with the times of its calls."""

    def __init__(self, failures: int, error: Exception | None = None) -> None:
        self.failures = failures
        self.error = error or ConnectionError("refused")
        self.called_s: list[float] = []

    async def __call__(self) -> str:
        self.called_s.append(asyncio.get_running_loop().time())
        if len(self.called_s) <= self.failures:
            raise self.error
        return "done"


def test_a_failure_is_retried_until_it_answers() -> None:
    call = Flaky(2)
    assert run(RetryBudget(seed=1).retry(call)) == "done"
    assert len(call.called_s) == 3


def test_the_last_attempts_error_is_raised_and_says_so() -> None:
    call = Flaky(9)
    with pytest.raises(ConnectionError) as caught:
        run(RetryBudget(seed=1).retry(call, attempts=2))
    assert len(call.called_s) == 2
    assert caught.value.__notes__ == ["not retried: that was the last attempt"]


def test_an_error_that_is_not_named_is_not_retried() -> None:
    call = Flaky(1, KeyError("no such row"))
    with pytest.raises(KeyError):
        run(RetryBudget().retry(call))
    assert len(call.called_s) == 1


def test_when_everything_fails_the_load_grows_by_the_ratio_and_no_more() -> None:
    async def main() -> int:
        budget, calls = RetryBudget(0.1, floor_per_s=0, seed=1), 0

        async def fail() -> None:
            nonlocal calls
            calls += 1
            raise Overloaded("full", reason="full")

        for _ in range(1000):
            with pytest.raises(Overloaded):
                await budget.retry(fail, attempts=5, backoff_s=0)
            await asyncio.sleep(0.001)
        assert budget.statistics().denied > 800
        return calls

    assert 1050 <= run(main()) <= 1100


async def test_a_quiet_client_has_the_floor() -> None:
    budget = RetryBudget(0.0, floor_per_s=0.5, window_s=10)
    assert [budget.spend() for _ in range(6)] == [True] * 5 + [False]
    await asyncio.sleep(11)
    assert budget.left == 5


async def test_a_spent_budget_is_noted_at_the_error() -> None:
    budget = RetryBudget(0.1, floor_per_s=0)
    with pytest.raises(Overloaded) as caught:
        await budget.retry(Flaky(1, Overloaded("full", reason="full")))
    assert caught.value.__notes__ == ["not retried: the budget is spent (0 retries of 1 requests)"]


def test_waits_grow_and_are_jittered_from_nothing_to_all() -> None:
    async def waits(seed: int) -> list[float]:
        call = Flaky(3)
        await RetryBudget(seed=seed).retry(call, attempts=4, backoff_s=0.1, most_backoff_s=0.3)
        return [later - sooner for sooner, later in zip(call.called_s, call.called_s[1:], strict=False)]

    rows = [run(waits(seed)) for seed in range(200)]
    for at, most_s in enumerate((0.1, 0.2, 0.3)):
        column = sorted(row[at] for row in rows)
        assert column[0] < 0.1 * most_s
        assert 0.9 * most_s < column[-1] <= most_s + 1e-6
        assert 0.4 * most_s < column[100] < 0.6 * most_s


def test_a_retry_waits_for_the_backends_retry_after() -> None:
    call = Flaky(1, Overloaded("full", reason="full", retry_after_s=2.0))
    assert run(RetryBudget(seed=1).retry(call, backoff_s=0.1)) == "done"
    assert 2.0 <= call.called_s[1] - call.called_s[0] <= 2.1


async def test_a_retry_that_would_be_past_the_deadline_is_not_made_and_not_paid() -> None:
    budget, call = RetryBudget(seed=1), Flaky(1, Overloaded("full", reason="full", retry_after_s=2.0))
    before = budget.left
    with deadline(1.0), pytest.raises(Overloaded) as caught:
        await budget.retry(call)
    assert caught.value.__notes__[0].startswith("not retried: the deadline passes in 1.000 s")
    assert budget.left == before
    assert asyncio.get_running_loop().time() < 0.1


async def test_a_cancelled_wait_is_left_at_once() -> None:
    call = Flaky(1, Overloaded("full", reason="full", retry_after_s=60.0))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await RetryBudget().retry(call)
    assert asyncio.get_running_loop().time() == pytest.approx(1)


@pytest.mark.parametrize("wrong", [{"ratio": -0.1}, {"floor_per_s": -1.0}, {"window_s": 0.0}])
def test_impossible_figures_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="at least 0"):
        RetryBudget(**wrong)  # type: ignore[arg-type]


def test_no_attempt_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="attempts = 0: at least 1"):
        run(RetryBudget().retry(Flaky(0), attempts=0))
