"""Tests of client-side throttling: refusals follow the backend's accepts and end when it recovers."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from penstock.errors import Overloaded
from penstock.pressure.client.throttle import Throttle
from penstock.testing import run

pytestmark = pytest.mark.runner("virtual")


async def accepted() -> str:
    return "done"


async def refused() -> str:
    raise Overloaded("the backend is full", reason="full")


async def drive(throttle: Throttle, call: Callable[[], Awaitable[str]], times: int, gap_s: float = 0.01) -> int:
    """Return how many of the calls reached the backend."""
    reached = 0
    for _ in range(times):
        try:
            async with throttle:
                reached += 1
                await call()
        except Overloaded:
            pass
        await asyncio.sleep(gap_s)
    return reached


async def test_a_backend_that_accepts_is_never_throttled() -> None:
    throttle = Throttle(seed=1)
    assert await drive(throttle, accepted, 1000) == 1000
    assert throttle.probability == 0


@pytest.mark.parametrize("concurrent", [50, 5000])
async def test_calls_in_flight_are_no_refusals(concurrent: int) -> None:
    """Many calls at once are not refused, from the first one on, if the backend accepts them all."""

    throttle = Throttle(seed=1)

    async def slow() -> None:
        async with throttle:
            await asyncio.sleep(1)

    await asyncio.gather(*(slow() for _ in range(concurrent)))
    statistics = throttle.statistics()
    assert (statistics.requests, statistics.accepts, statistics.refused) == (concurrent, concurrent, 0)


async def test_a_burst_at_a_backend_that_refuses_is_throttled_as_soon_as_the_first_refusals_are_back() -> None:
    throttle, reached = Throttle(seed=1), 0

    async def call(begins_s: float) -> None:
        nonlocal reached
        await asyncio.sleep(begins_s)
        async with throttle:
            reached += 1
            await asyncio.sleep(0.1)
            raise Overloaded("full", reason="full")

    outcomes = await asyncio.gather(*(call(number * 0.001) for number in range(1000)), return_exceptions=True)
    assert all(isinstance(outcome, Overloaded) for outcome in outcomes)
    # the first 100, which end after 0.1 s, and one in ten of the others
    assert 150 <= reached <= 240


async def test_half_may_fail_before_the_first_is_refused_here() -> None:
    """With `k` = 2 all calls are sent while half of them are accepted."""

    throttle = Throttle(seed=1)
    for _ in range(300):
        assert await drive(throttle, accepted, 1) == 1
        assert await drive(throttle, refused, 1) == 1


async def test_the_formula_is_the_books() -> None:
    throttle = Throttle(seed=1)
    for _ in range(10):
        throttle.enter()
        throttle.leave()
    for _ in range(30):
        try:
            throttle.enter()
        except Overloaded:
            continue
        throttle.leave(TimeoutError())
    assert throttle.probability == pytest.approx((40 - 2 * 10) / 41)


async def test_nine_in_ten_calls_to_a_dead_backend_are_refused() -> None:
    throttle = Throttle(seed=1)
    reached = await drive(throttle, refused, 1000)
    assert 70 < reached < 140
    statistics = throttle.statistics()
    assert (statistics.requests, statistics.accepts) == (1000, 0)
    assert statistics.refused == 1000 - reached
    assert statistics.probability == 0.9


async def test_a_recovery_is_noticed_and_what_is_old_is_forgotten() -> None:
    throttle = Throttle(window_s=10, seed=1)
    await drive(throttle, refused, 500)
    await asyncio.sleep(10)
    assert throttle.probability == 0
    assert await drive(throttle, accepted, 500) == 500


async def test_recovery_comes_without_silence_too() -> None:
    """The few permitted calls are accepted, so the share of refused ones falls to zero within three windows."""

    throttle = Throttle(window_s=10, seed=1)
    await drive(throttle, refused, 2000)
    await drive(throttle, accepted, 3000)
    assert await drive(throttle, accepted, 100) == 100


async def test_without_the_bound_a_recovery_is_not_noticed_for_many_windows() -> None:
    """The book's formula alone recovers too slowly, which is the reason for the bound."""

    throttle = Throttle(window_s=10, most=1.0, seed=1)
    await drive(throttle, refused, 2000)
    await drive(throttle, accepted, 3000)
    assert await drive(throttle, accepted, 100) < 50


async def test_a_shed_has_its_reason() -> None:
    throttle = Throttle(name="db", seed=1)
    with pytest.raises(Overloaded, match=r"^throttled db: 0 of \d+ calls accepted in 120 s") as caught:
        for _ in range(200):
            throttle.enter()
            throttle.leave(TimeoutError())
    assert caught.value.reason == "throttled"


async def test_other_exceptions_are_answers() -> None:
    throttle = Throttle(seed=1)
    for _ in range(200):
        with pytest.raises(KeyError):
            async with throttle:
                raise KeyError("no such row")
    assert throttle.statistics().accepts == 200


async def test_types_that_are_named_are_no_answers() -> None:
    throttle = Throttle(errors=(KeyError,), seed=1)
    for error in (TimeoutError(), KeyError(), Overloaded("", reason="full")):
        throttle.enter()
        throttle.leave(error)
    assert throttle.statistics().accepts == 1


async def test_a_cancelled_call_counts_for_nothing() -> None:
    throttle = Throttle(window_s=1, seed=1)
    throttle.enter()
    await asyncio.sleep(5)
    throttle.leave(asyncio.CancelledError())
    assert (throttle.statistics().requests, throttle.probability) == (0, 0)


async def test_each_key_has_its_own_counts_and_old_keys_are_forgotten() -> None:
    throttle = Throttle(seed=1)
    await drive(throttle.of("bad"), refused, 100)
    assert throttle.of("bad").probability == 0.9
    assert throttle.of("good").probability == throttle.probability == 0
    for key in range(2000):
        throttle.of(key)
    assert throttle.of("bad").probability == 0


async def test_a_guarded_function_goes_through_the_throttle() -> None:
    throttle = Throttle(seed=1)

    @throttle.guard
    async def double(number: int) -> int:
        """Return twice the number."""
        return number * 2

    assert await double(4) == 8
    assert double.__doc__ == "Return twice the number."
    assert throttle.statistics().accepts == 1


def test_the_same_seed_refuses_the_same_calls() -> None:
    async def pattern() -> list[bool]:
        throttle, made = Throttle(seed=7), []
        for _ in range(50):
            made.append(await drive(throttle, refused, 1) == 1)
        return made

    assert run(pattern()) == run(pattern())


@pytest.mark.parametrize("wrong", [{"k": 0.9}, {"window_s": 0.0}, {"k": float("nan")}, {"most": 1.1}])
def test_impossible_figures_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Throttle(**wrong)  # type: ignore[arg-type]
