"""Sheds of gates are in the flight recorder only while it records."""

import asyncio

import pytest

import penstock
from penstock import Config, TasksConfig
from penstock.errors import Overloaded
from penstock.pressure import Gate
from penstock.tasks import set_level
from penstock.tasks.observers.registry import observer_of

pytestmark = pytest.mark.skipif(not hasattr(penstock.EventLoop, "_probe"), reason="the flight recorder is native")


def at_level(level, main):
    return penstock.run(main(), config=Config(tasks=TasksConfig(level=level)))


async def refused(gate):
    async with gate:
        with pytest.raises(Overloaded):
            await gate.enter()


def noted():
    events = observer_of(asyncio.get_running_loop()).events()
    return [event.text for event in events if event.kind == "shed"]


def test_a_refusal_is_in_the_trace():
    async def main():
        await refused(Gate(1, max_wait_s=0, name="door"))
        return noted()

    assert at_level("trace", main) == ["door: limit"]


def test_nobody_listens_below_trace():
    async def main():
        gate = Gate(1, max_wait_s=0)
        assert gate.on_shed is None
        set_level("trace")
        assert gate.on_shed is not None
        await refused(gate)
        assert noted() == [f"{gate.name}: limit"]
        set_level("time")
        assert gate.on_shed is None and Gate(1).on_shed is None

    at_level("time", main)


def test_a_listener_of_the_programs_own_stays():
    async def main():
        gate, told = Gate(1, max_wait_s=0), []
        gate.on_shed = lambda gate, reason: told.append(reason)
        set_level("trace")
        await refused(gate)
        set_level("time")
        await refused(gate)
        assert told == ["limit", "limit"]

    at_level("time", main)


def test_a_closed_loops_recorder_is_forgotten():
    async def main():
        return None

    at_level("trace", main)
    assert Gate(1).on_shed is None
