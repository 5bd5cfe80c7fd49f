"""Tests of a bounded group with a real gate: sheds, samples and permits."""

import asyncio

import pytest

from penstock.errors import Overloaded
from penstock.pressure import BoundedTaskGroup
from tests.support.waiting import turns

gates = pytest.importorskip("penstock.pressure.admission.gate")


async def test_tasks_are_entries_of_the_gate_and_are_measured() -> None:
    gate, inside, most = gates.Gate(2, max_wait_s=10.0), 0, 0

    async def work() -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await turns()
        inside -= 1

    async with BoundedTaskGroup(gate=gate) as group:
        for _ in range(20):
            await group.spawn(work)
    now = gate.statistics()
    assert (most, now.inflight, now.admitted, now.finished, now.service.count) == (2, 0, 20, 20, 20)
    assert sum(now.sheds.values()) == 0


async def test_a_refused_spawn_makes_no_task() -> None:
    gate = gates.Gate(1, max_wait_s=0)
    async with BoundedTaskGroup(gate) as group:
        await group.spawn(turns)
        with pytest.raises(Overloaded) as refused:
            await group.spawn(turns)
        assert refused.value.reason == "limit"
        with pytest.raises(Overloaded):
            group.create_task(turns())
        assert len(asyncio.all_tasks()) == 2
    assert gate.statistics().inflight == 0


async def test_nested_groups_of_one_gate_hand_on_what_they_hold_and_nothing_counts_as_shed() -> None:
    gate, leaves = gates.Gate(2, max_wait_s=10.0), []

    async def tree(depth: int) -> None:
        if not depth:
            leaves.append(1)
            return
        async with BoundedTaskGroup(gate) as group:
            for _ in range(2):
                await group.spawn(tree, depth - 1)

    async with BoundedTaskGroup(gate) as group:
        await group.spawn(tree, 4)
    now = gate.statistics()
    assert (len(leaves), now.inflight, sum(now.sheds.values())) == (16, 0, 0)
