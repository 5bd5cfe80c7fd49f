"""Tests of `penstock.pressure.deadline` at gates: a caller's deadline bounds its wait at any gate below."""

import asyncio
import gc
import math
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from penstock.errors import Overloaded
from penstock.pressure import deadline
from penstock.pressure.admission.gate import Gate
from tests.unit.pressure.driving import Crowd, settle
from tests.unit.pressure.test_gate_waiting import pace

pytestmark = pytest.mark.runner("on_loop")

Run = Callable[..., Any]


def timers(loop: Any) -> int:
    """Return the count of timers that are set and not cancelled."""
    return sum(not timer.cancelled() for timer in loop._scheduled)


async def test_a_waiter_is_shed_as_its_deadline_passes_at_any_place_in_the_queue(
    gate_class: type[Gate], standing: Any
) -> None:
    crowd = Crowd(gate_class(1, max_wait_s=math.inf))
    await crowd.come("in", "patient")
    with deadline(0.5):
        await crowd.come("hurried", "again")
    with deadline(2.0):
        await crowd.come("entry", priority=0)
    standing.now_s += 0.49
    await settle()
    assert crowd.refused == {}
    standing.now_s += 0.02
    await settle()
    assert crowd.reasons() == {"hurried": "deadline", "again": "deadline"}
    standing.now_s += 2.0
    await settle()
    assert crowd.reasons()["entry"] == "deadline"
    assert (crowd.gate.queued(), crowd.gate.inflight) == (1, 1)
    await crowd.leave("in")
    assert crowd.came_in == ["in", "patient"]
    await crowd.end()


@pytest.mark.parametrize("how", ["comes in", "is cancelled", "is refused", "is abandoned"])
async def test_an_ended_wait_leaves_no_timer(gate_class: type[Gate], standing: Any, how: str) -> None:
    crowd = Crowd(gate_class(1, max_wait_s=math.inf))
    await crowd.come("in")
    before = timers(standing)
    with deadline(5.0):
        if how == "is abandoned":
            waiting = crowd.gate.enter()
            waiting.send(None)
        else:
            await crowd.come("hurried")
    assert (crowd.gate.queued(), timers(standing)) == (1, before + 1)
    if how == "comes in":
        await crowd.leave("in")
    elif how == "is cancelled":
        await crowd.cancel("hurried")
    elif how == "is refused":
        crowd.gate.close()
    else:
        waiting.close()
    assert (crowd.gate.queued(), timers(standing)) == (0, before)
    standing.now_s += 6.0
    await settle()
    assert crowd.gate.statistics().sheds["deadline"] == 0
    await crowd.end()


async def test_a_request_past_its_deadline_does_not_begin_to_wait(gate_class: type[Gate], standing: Any) -> None:
    crowd = Crowd(gate_class(1, max_wait_s=math.inf, max_queued=1))
    await crowd.come("in")
    await crowd.come("low", priority=3)
    with deadline(0.5):
        standing.now_s += 0.5
        # a request past its deadline takes no place
        await crowd.come("late", priority=0)
    assert crowd.reasons() == {"late": "deadline"}
    assert crowd.gate.queued() == 1
    await crowd.end()


async def test_a_free_permit_is_taken_even_past_the_deadline(gate_class: type[Gate], standing: Any) -> None:
    gate = gate_class(2)
    with deadline(0.0):
        async with gate, gate.entry():
            assert gate.inflight == 2


async def test_a_request_that_cannot_finish_in_time_is_shed_instead_of_admitted(
    gate_class: type[Gate], standing: Any
) -> None:
    crowd = Crowd(gate_class(1, max_wait_s=1.0))
    await pace(crowd, standing, 0.2)
    with deadline(0.55):
        await crowd.come("late")
    await crowd.come("in time")
    standing.now_s += 0.2
    # the request has waited for 0.2 s and would take twice 0.2 s
    await crowd.leave(("paced", 11))
    assert crowd.reasons() == {"late": "deadline"}
    assert crowd.came_in[-1] == "in time"
    await crowd.end()


@pytest.mark.parametrize(("around_s", "own_s"), [(0.3, 5.0), (5.0, 0.3)], ids=["around it", "its own"])
async def test_the_sooner_of_two_deadlines_holds(
    gate_class: type[Gate], standing: Any, around_s: float, own_s: float
) -> None:
    crowd = Crowd(gate_class(1, max_wait_s=10.0, deadline_s=20.0))
    await crowd.come("in")
    with deadline(around_s):
        await crowd.come("hurried", deadline_s=own_s)
    standing.now_s += 0.31
    await crowd.leave("in")
    assert crowd.reasons() == {"hurried": "deadline"}
    await crowd.end()


async def test_a_deadline_after_the_longest_wait_sets_no_timer_of_its_own(
    gate_class: type[Gate], standing: Any
) -> None:
    crowd = Crowd(gate_class(1, max_wait_s=0.05))
    await crowd.come("in")
    with deadline(1.0):
        await crowd.come(*range(3))
    # this is the gate's own timer, for the oldest waiter
    assert timers(standing) == 1
    standing.now_s += 0.06
    await settle()
    assert set(crowd.reasons().values()) == {"expired"}
    await crowd.end()


async def test_a_deadline_reaches_a_gate_through_tasks(gate_class: type[Gate], standing: Any) -> None:
    gate = gate_class(1, max_wait_s=math.inf)

    @gate.guard
    async def query() -> None:
        """Do nothing; the coroutine is never created."""

    async def handle() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(query())

    await gate.enter()
    with deadline(0.1):
        handling = asyncio.ensure_future(handle())
    await settle()
    assert gate.queued() == 1
    standing.now_s += 0.11
    with pytest.raises(ExceptionGroup) as failed:
        await handling
    refused = failed.value.exceptions[0]
    assert isinstance(refused, Overloaded)
    assert (refused.reason, refused.queue_age_s) == ("deadline", pytest.approx(0.11))
    gate.leave()


async def test_a_waiter_with_a_timer_is_collected(gate_class: type[Gate], standing: Any) -> None:
    class Key:
        """An object with weak references."""

    key = Key()
    seen = weakref.ref(key)
    crowd = Crowd(gate_class(1, max_wait_s=math.inf))
    await crowd.come("in")
    with deadline(5.0):
        await crowd.come("hurried", key=key)
    await crowd.cancel("hurried")
    del key, crowd.tasks["hurried"]
    # the loop removes a cancelled timer when it is due
    standing.now_s += 6.0
    await settle()
    gc.collect()
    assert seen() is None
    await crowd.end()
