"""Tests of priority classes, keys and reserves: order, sheds from a full queue, and reserved permits."""

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from penstock.pressure.admission.gate import Gate, Priority
from tests.unit.pressure.driving import Crowd

pytestmark = pytest.mark.runner("on_loop")

Run = Callable[..., Any]


async def test_a_higher_class_is_served_first_and_inside_a_class_the_first(gate_class: type[Gate]) -> None:
    crowd = Crowd(gate_class(1, max_wait_s=math.inf))
    await crowd.come("in")
    for name in ("low", "normal", "high", "critical", "high 2"):
        await crowd.come(name, priority=Priority[name.split()[0].upper()])
    await crowd.leave("in", "critical", "high", "high 2", "normal", "low")
    assert crowd.came_in == ["in", "critical", "high", "high 2", "normal", "low"]


async def test_in_a_full_queue_a_higher_class_takes_the_place_of_the_newest_of_the_lowest(
    gate_class: type[Gate],
) -> None:
    crowd = Crowd(gate_class(1, max_wait_s=math.inf, max_queued=3))
    await crowd.come("in")
    await crowd.come("low 1", "low 2", priority=Priority.LOW)
    await crowd.come("normal")
    await crowd.come("high", priority=Priority.HIGH)
    assert crowd.reasons() == {"low 2": "displaced"}
    await crowd.come("low 3", priority=Priority.LOW)
    assert crowd.reasons()["low 3"] == "full"
    await crowd.come("high 2", "high 3", priority=Priority.HIGH)
    assert crowd.reasons() == {"low 2": "displaced", "low 3": "full", "low 1": "displaced", "normal": "displaced"}
    await crowd.come("high 4", priority=Priority.HIGH)
    assert crowd.reasons()["high 4"] == "full"
    await crowd.end()


async def test_keys_take_turns(gate_class: type[Gate]) -> None:
    crowd = Crowd(gate_class(1, max_wait_s=math.inf))
    await crowd.come("in")
    await crowd.come("a1", "a2", "a3", key="a")
    await crowd.come("b1", "b2", key="b")
    await crowd.come("none")
    await crowd.leave("in", "a1", "b1", "none", "a2", "b2", "a3")
    assert crowd.came_in == ["in", "a1", "b1", "none", "a2", "b2", "a3"]


async def test_a_full_queue_refuses_a_key_that_has_its_share_and_makes_room_for_one_that_has_not(
    gate_class: type[Gate],
) -> None:
    crowd = Crowd(gate_class(1, max_wait_s=math.inf, max_queued=6))
    await crowd.come("in")
    await crowd.come(*range(6), key="greedy")
    await crowd.come("first", key="modest")
    assert crowd.reasons() == {5: "share"}
    await crowd.come("more", key="greedy")
    assert crowd.reasons()["more"] == "share"
    await crowd.come("second", "third", key="modest")
    await crowd.come("fourth", key="modest")
    # each key has three places
    assert Counter(crowd.reasons().values()) == {"share": 5}
    assert crowd.reasons().keys() == {3, 4, 5, "more", "fourth"}
    await crowd.end()


async def test_a_key_alone_may_have_the_whole_queue(gate_class: type[Gate]) -> None:
    crowd = Crowd(gate_class(1, max_wait_s=math.inf, max_queued=3))
    await crowd.come("in")
    await crowd.come(1, 2, 3, 4, key="only")
    assert crowd.reasons() == {4: "full"}
    await crowd.end()


async def test_the_reserve_is_for_critical_ones_alone(gate_class: type[Gate]) -> None:
    crowd = Crowd(gate_class(1, max_wait_s=math.inf, reserve=1))
    await crowd.come("in", "waits")
    await crowd.come("probe", "probe 2", priority=Priority.CRITICAL)
    assert crowd.came_in == ["in", "probe"]
    assert not crowd.gate.try_enter()
    # a permit released beyond the limit goes to the next critical request
    await crowd.leave("in")
    assert crowd.came_in == ["in", "probe", "probe 2"]
    await crowd.leave("probe")
    assert "waits" not in crowd.came_in
    assert crowd.gate.try_enter(priority=Priority.CRITICAL)
    crowd.gate.leave()
    await crowd.leave("probe 2")
    assert crowd.came_in[-1] == "waits"
    await crowd.end()


@pytest.mark.parametrize("priority", [-1, 4])
async def test_an_unknown_class_is_an_error(gate_class: type[Gate], priority: int) -> None:
    gate = gate_class(1)
    with pytest.raises(ValueError, match="priority is 0"):
        gate.entry(priority=priority)
    with pytest.raises(ValueError, match="priority is 0"):
        await gate.enter(priority=priority)
