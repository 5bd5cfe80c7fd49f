"""Tests of keys with code of their own: no hash or comparison that fails damages a gate's permits or queue."""

import asyncio
import functools

import pytest

from penstock.pressure import Gate, deadline
from tests.support.loops import run_on


class Key:
    """A key with hash and comparison set by the test."""

    def __init__(self):
        self.number, self.problem = 0, None

    def __hash__(self):
        if self.problem is not None:
            raise self.problem
        return self.number

    def __eq__(self, other):
        return self is other


async def pass_through(gate, key, came_in):
    async with gate.entry(key=key):
        came_in.append(key)


@pytest.fixture
def run():
    """Return `run(coroutine)`, which runs it to its end in asyncio's loop; the kind of loop does not matter."""
    return functools.partial(run_on, asyncio.SelectorEventLoop)


async def test_a_key_that_cannot_be_hashed_is_a_type_error_and_leaves_nothing():
    gate = Gate(1, max_wait_s=5, deadline_s=10)
    entry = gate.entry(key={})
    async with gate:
        with deadline(0.02), pytest.raises(TypeError, match="unhashable"):
            async with entry:
                pass
        assert gate.queued() == 0
        # the caller's deadline passes with nothing to shed
        await asyncio.sleep(0.05)
        # an entry that failed before it began can be used again
        with deadline(5), pytest.raises(TypeError, match="unhashable"):
            async with entry:
                pass
    assert gate.try_enter()
    gate.leave()


@pytest.mark.parametrize("change", ["hashes otherwise", "raises"])
async def test_a_key_that_changes_while_it_waits_costs_no_place(change):
    gate, key, came_in = Gate(1, max_wait_s=5, deadline_s=10), Key(), []
    for _ in range(3):
        async with gate:
            tasks = [asyncio.create_task(pass_through(gate, one, came_in)) for one in (key, "other")]
            await asyncio.sleep(0)
            assert gate.queued() == 2
            if change == "raises":
                key.problem = LookupError()
            else:
                key.number += 1
        await asyncio.gather(*tasks)
        key.problem = None
    assert came_in.count(key) == came_in.count("other") == 3
    assert (gate.queued(), gate.statistics().inflight) == (0, 0)


async def test_an_interrupt_as_a_waiter_is_queued_loses_no_permit(monkeypatch):
    gate = Gate(1, max_wait_s=5, deadline_s=10)
    loop, entry = asyncio.get_running_loop(), gate.entry(key="a")
    plain = loop.call_at

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    async with gate:
        with deadline(1):
            loop.call_at = interrupted
            with pytest.raises(KeyboardInterrupt):
                entry.__aenter__()
            loop.call_at = plain
        assert gate.queued() == 0
    assert gate.try_enter()
    gate.leave()
    async with entry:
        pass
