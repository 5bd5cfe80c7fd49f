"""Tests of waits at a gate: bounded by an estimate at arrival, by expiry of the oldest and by the deadline."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from penstock.errors import Overloaded
from penstock.pressure.admission.gate import Gate
from tests.unit.pressure.driving import Crowd, settle

pytestmark = pytest.mark.runner("on_loop")

Run = Callable[..., Any]


async def pace(crowd: Crowd, loop: Any, service_s: float, times: int = 12) -> None:
    """Serve requests one after another at a gate of limit 1, so that it estimates service time and departures."""
    for number in range(times):
        await crowd.come(("paced", number))
        if number:
            loop.now_s += service_s
            await crowd.leave(("paced", number - 1))


async def test_with_no_wait_allowed_the_refusal_is_at_once(gate_class: type[Gate]) -> None:
    crowd = Crowd(gate_class(1, max_wait_s=0, name="db"))
    await crowd.come("in", "out")
    problem = crowd.refused["out"]
    assert (problem.reason, problem.queued, problem.limit, problem.gate) == ("limit", 0, 1, "db")
    assert problem.retry_after_s is None
    await crowd.end()


async def test_a_request_with_too_long_a_predicted_wait_is_shed_at_arrival(
    gate_class: type[Gate], standing: Any
) -> None:
    crowd = Crowd(gate_class(1, max_wait_s=1.0))
    await pace(crowd, standing, 0.0999)
    # at one departure in 0.0999 s, seven fit into the promised wait, 0.7 of the longest one
    await crowd.come(*range(9))
    assert crowd.reasons() == {7: "wait", 8: "wait"}
    problem = crowd.refused[8]
    assert problem.queued == 7
    assert problem.retry_after_s == pytest.approx(0.8, rel=0.01)
    await crowd.end()


async def test_the_longest_waiter_is_shed_then(gate_class: type[Gate], standing: Any) -> None:
    crowd = Crowd(gate_class(1, max_wait_s=0.05))
    await crowd.come("in", "old")
    standing.now_s += 0.03
    await crowd.come("young")
    standing.now_s += 0.0201
    await settle()
    assert crowd.reasons() == {"old": "expired"}
    assert crowd.refused["old"].queue_age_s == pytest.approx(0.0501)
    assert crowd.gate.queued() == 1
    standing.now_s += 0.03
    await settle()
    assert crowd.reasons() == {"old": "expired", "young": "expired"}
    assert standing.futures < 100
    await crowd.end()


async def test_one_timer_serves_all_waiters(gate_class: type[Gate], standing: Any) -> None:
    made = []
    set_timer = standing.call_at
    standing.call_at = lambda *args, **kwargs: made.append(args) or set_timer(*args, **kwargs)
    crowd = Crowd(gate_class(1, max_wait_s=0.05))
    await crowd.come("in", *range(20))
    assert len(made) == 1
    standing.now_s += 0.051
    await settle()
    assert set(crowd.reasons().values()) == {"expired"}
    assert len(made) == 1
    await crowd.end()


async def test_a_wait_without_bound_never_expires_and_stays_in_order(gate_class: type[Gate], standing: Any) -> None:
    crowd = Crowd(gate_class(1, max_wait_s=math.inf))
    await pace(crowd, standing, 10.0)
    await crowd.come(1, 2, 3)
    standing.now_s += 1e6
    await settle()
    assert not crowd.refused
    await crowd.leave(("paced", 11), 1, 2, 3)
    assert crowd.came_in[-3:] == [1, 2, 3]


async def test_a_full_queue_refuses(gate_class: type[Gate]) -> None:
    crowd = Crowd(gate_class(1, max_wait_s=math.inf, max_queued=2))
    await crowd.come("in", 1, 2, 3)
    assert crowd.reasons() == {3: "full"}
    await crowd.end()


async def test_when_estimates_fail_the_newest_is_served_first_for_a_while(
    gate_class: type[Gate], standing: Any
) -> None:
    crowd = Crowd(gate_class(1, max_wait_s=1.0))
    assert crowd.gate.try_enter()
    await crowd.come(*range(20))
    standing.now_s += 1.001
    await settle()
    assert set(crowd.reasons().values()) == {"expired"}
    await crowd.come("a", "b", "c")
    crowd.gate.leave()
    await settle()
    assert crowd.came_in == ["c"]
    # after twice the longest wait the queue is first in, first out again
    standing.now_s += 2.1
    await settle()
    await crowd.come("d", "e")
    await crowd.leave("c", "d")
    assert crowd.came_in == ["c", "d", "e"]
    await crowd.end()


async def test_when_estimates_fail_the_old_end_is_refused_after_two_service_times(
    gate_class: type[Gate], standing: Any
) -> None:
    crowd = Crowd(gate_class(1, max_wait_s=1.0))
    await pace(crowd, standing, 0.1)
    for batch in range(2):
        await crowd.come(*((batch, number) for number in range(6)))
        standing.now_s += 1.001
        await settle()
    assert len(crowd.refused) == 12
    await crowd.come("next")
    standing.now_s += 0.19
    await settle()
    assert crowd.gate.queued() == 1
    standing.now_s += 0.02
    await settle()
    assert crowd.reasons()["next"] == "expired"
    await crowd.end()


async def test_a_request_that_cannot_finish_by_its_deadline_is_shed_instead_of_admitted(
    gate_class: type[Gate], standing: Any
) -> None:
    crowd = Crowd(gate_class(1, max_wait_s=1.0, deadline_s=1.0))
    await pace(crowd, standing, 0.2)
    await crowd.come("late", deadline_s=0.55)
    await crowd.come("in time")
    standing.now_s += 0.2
    # the request has waited for 0.2 s and would take twice 0.2 s
    await crowd.leave(("paced", 11))
    assert crowd.reasons() == {"late": "deadline"}
    assert crowd.came_in[-1] == "in time"
    await crowd.end()


async def test_an_earlier_arrival_has_less_time_left(gate_class: type[Gate], standing: Any) -> None:
    gate = gate_class(4, deadline_s=1.0)
    with pytest.raises(Overloaded) as refused:
        await gate.enter(arrived_s=standing.now_s - 1.01)
    assert refused.value.reason == "deadline"
    await gate.enter(arrived_s=standing.now_s - 0.99)
    await gate.enter(arrived_s=standing.now_s - 1.99, deadline_s=2.0)
    assert gate.inflight == 2


async def test_a_service_longer_than_the_deadline_still_lets_fresh_ones_in(
    gate_class: type[Gate], standing: Any
) -> None:
    crowd = Crowd(gate_class(1, max_wait_s=10.0, deadline_s=1.0))
    await pace(crowd, standing, 3.0)
    await crowd.end()
    async with crowd.gate.entry():
        assert crowd.gate.inflight == 1
    async with crowd.gate.entry(arrived_s=standing.now_s - 0.05):
        assert crowd.gate.inflight == 1


def test_the_longest_wait_is_half_of_a_short_deadline(gate_class: type[Gate]) -> None:
    assert gate_class(1).max_wait_s == 0.05
    assert gate_class(1, deadline_s=10).max_wait_s == 0.05
    assert gate_class(1, deadline_s=0.02).max_wait_s == 0.01
    assert gate_class(1, deadline_s=0.02, max_wait_s=0.5).max_wait_s == 0.5


@pytest.mark.parametrize(
    "wrong", [{"max_wait_s": -1}, {"max_wait_s": math.nan}, {"deadline_s": 0}, {"reserve": -1}, {"max_queued": -1}]
)
def test_an_impossible_argument_says_what_is_allowed(gate_class: type[Gate], wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="allowed is"):
        gate_class(1, **wrong)
