"""Tests of a gate's invariants: over random steps under a seeded schedule, and with a cancel at every await.

`make soak` drives a million steps (tests/soak/test_gate_soak.py).
"""

import asyncio

import pytest

from penstock.errors import Overloaded
from penstock.pressure import Gate, Priority
from penstock.testing import VirtualLoop, explore
from tests.unit.pressure.gatedriver import SETUPS, drive

STEPS = 5_000


@pytest.mark.parametrize("name", SETUPS)
def test_the_invariants_hold_through_random_steps(name: str) -> None:
    driver = drive(SETUPS[name], seed=1, steps=STEPS)
    assert driver.arrivals > STEPS / 4
    assert driver.ended["done"] > 200
    assert driver.ended["cancelled"] > 100
    assert driver.gate.waited > 200 or not SETUPS[name].max_wait_s


def test_the_same_seed_drives_the_same_way() -> None:
    first, again, other = (drive(SETUPS["hasty"], seed=seed, steps=500) for seed in (7, 7, 8))
    assert first.ended == again.ended
    assert first.ended != other.ended


async def crowded(*, max_wait_s: float, resize: bool) -> None:
    """Four tasks come to a gate of limit 1 or 2 in each way; after any cancellation the others pass."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    gate = Gate(1, max_wait_s=max_wait_s)
    inside = most = passed = 0

    async def stay() -> None:
        nonlocal inside, most, passed
        inside += 1
        most = max(most, inside)
        try:
            await asyncio.sleep(0.01)
            passed += 1
        finally:
            inside -= 1

    async def bare() -> None:
        async with gate:
            await stay()

    async def entry() -> None:
        async with gate.entry(priority=1, key="a"):
            await stay()

    async def enter() -> None:
        await gate.enter(key="b")
        try:
            await stay()
        finally:
            gate.leave()

    tasks = [loop.create_task(way()) for way in (bare, entry, enter, gate.guard(stay))]
    if resize:
        await asyncio.sleep(0)
        gate.resize(2)
        await asyncio.sleep(0.005)
        gate.resize(1)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    wrong = [error for error in outcomes if error and not isinstance(error, Overloaded | asyncio.CancelledError)]
    assert not wrong
    assert most <= (2 if resize else 1)
    assert passed == outcomes.count(None)
    if max_wait_s > 1:
        assert passed >= 3
    statistics = gate.statistics()
    assert (statistics.inflight, statistics.queued) == (0, 0)
    assert statistics.admitted == statistics.finished >= passed
    assert gate.try_enter()


@pytest.mark.parametrize("resize", [False, True])
@pytest.mark.parametrize("max_wait_s", [60, 0.015])
def test_a_cancel_at_every_await_loses_no_permit_and_no_waiter(max_wait_s: float, resize: bool) -> None:
    seen = explore(lambda: crowded(max_wait_s=max_wait_s, resize=resize), seeds=range(20))
    assert seen.cancels > 200


@pytest.mark.runner("virtual")
async def test_a_reserved_permit_is_counted_before_the_first_use_and_refused_once_closed() -> None:
    gate = Gate(1, reserve=1)
    assert gate.try_enter(priority=Priority.CRITICAL)
    async with gate.entry(priority=Priority.CRITICAL):
        assert gate.inflight == 2
    gate.close()
    assert not gate.try_enter(priority=Priority.CRITICAL)
    gate.leave()
    assert gate.inflight == 0
