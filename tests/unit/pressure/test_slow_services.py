"""Tests of limit "auto" with slow services: it sheds no call while there is capacity, and finds the limit."""

import pytest

from penstock.pressure.limits import Gradient
from tests.unit.pressure.slowload import SCENARIOS, Outcome, Scenario, constant, fixed_s, refused, simulate

# Scenarios with sufficient capacity throughout, and the percentage of calls that may be shed.
ROOM = {
    "3 s at 20/s": 1.0,
    "10 s at 5/s": 1.0,
    "half 2 ms, half 0.5 s, 200/s": 1.0,
    "half 2 ms, half 0.5 s, 50/s": 1.0,
    "cold start, 40 ms at 600/s": 1.0,
    "around 3 s at 20/s": 1.0,
    "1 in 100 takes 5 s, others 20 ms, 300/s": 1.0,
    "40 ms, 100/s to 600/s": 1.0,
    # few answers decide, so the result depends on the seed; each doubling takes one latency
    "around 40 ms at 600/s": 4.0,
    "3 s, 5/s to 40/s": 5.0,
    # more than a hundred calls arrive before the first answer
    "1 s at 300/s": 8.5,
}


@pytest.mark.parametrize("name", ROOM)
def test_no_call_is_shed_while_there_is_capacity(name: str) -> None:
    outcomes, gate = simulate(SCENARIOS[name])
    assert refused(outcomes) <= ROOM[name], gate


def test_an_initial_limit_lets_in_at_once_what_is_known_to_be_wanted() -> None:
    outcomes, _ = simulate(SCENARIOS["1 s at 300/s"], limit=Gradient(initial=400))
    assert refused(outcomes) == 0


def test_a_slow_service_that_turns_slower_is_followed() -> None:
    """A few latencies suffice: two windows with fewer in flight show that there is no queue."""
    outcomes, gate = simulate(SCENARIOS["3 s turns 6 s, 20/s"])
    assert refused([one for one in outcomes if one.arrived_s < 40]) == 0
    assert refused(outcomes) <= 30
    assert gate.statistics().limit >= 100


def served(outcomes: list[Outcome], since_s: float) -> list[Outcome]:
    return [one for one in outcomes if not one.reason and one.arrived_s >= since_s]


@pytest.mark.parametrize(("slots", "rate"), [(20, 20.0), (4, 100.0)])
def test_a_slow_service_that_is_full_is_not_buried(slots: int, rate: float) -> None:
    """The backlog from before the first answer drains; then latency is a few service times at full capacity."""
    outcomes, _ = simulate(Scenario("", 180, constant(rate), fixed_s(3.0), slots))
    late = served(outcomes, 110)
    assert len(late) >= 0.7 * 70 * slots / 3
    assert max(one.took_s for one in late) <= 15
