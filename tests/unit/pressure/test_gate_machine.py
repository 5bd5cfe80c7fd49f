"""A stateful test of a gate against a small model: any sequence of calls, with tasks resumed between them or not."""

import asyncio
import math
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from penstock.errors import Overloaded
from penstock.pressure import Gate
from penstock.testing import VirtualLoop

MOST_QUEUED = 4


class Model:
    """A model of a gate: permits and a queue before them."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0
        self.inside: list[int] = []
        self.granted: list[int] = []
        self.queue: list[int] = []

    @property
    def inflight(self) -> int:
        return self.taken + len(self.inside) + len(self.granted)

    def pump(self) -> None:
        while self.queue and self.inflight < self.limit:
            self.granted.append(self.queue.pop(0))

    def settle(self, leaving: set[int]) -> None:
        """Apply a run of all tasks: granted ones enter, and leaving ones pass their permits on."""
        while self.granted or leaving & set(self.inside):
            self.inside += self.granted
            self.granted.clear()
            self.inside = [number for number in self.inside if number not in leaving]
            self.pump()


class GateMachine(RuleBasedStateMachine):
    """A state machine of every kind of call. Tasks run only in `settle` and `arrive`; grants are pending in between."""

    @initialize(limit=st.integers(1, 3), seed=st.none() | st.integers(0, 100))
    def begin(self, limit: int, seed: int | None) -> None:
        self.loop = VirtualLoop(seed)
        self.gate = Gate(limit, max_wait_s=math.inf, max_queued=MOST_QUEUED)
        self.model = Model(limit)
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self.go: dict[int, asyncio.Future[None]] = {}
        self.inside: list[int] = []
        self.outcomes: dict[int, str] = {}
        self.leaving: set[int] = set()
        self.count = 0
        self.settle()
        # the first use binds a gate to its loop
        self.loop.run_until_complete(self.use_once())

    async def use_once(self) -> None:
        async with self.gate:
            pass

    async def come(self, number: int, entry: bool) -> None:
        try:
            async with self.gate.entry() if entry else self.gate:
                self.inside.append(number)
                try:
                    await self.go[number]
                finally:
                    self.inside.remove(number)
        except Overloaded as refused:
            self.outcomes[number] = refused.reason
        except asyncio.CancelledError:
            self.outcomes[number] = "cancelled"
        else:
            self.outcomes[number] = "done"

    @rule()
    def settle(self) -> None:
        self.loop.run_until_complete(self.loop.wait_all_blocked())
        self.model.settle(self.leaving)
        self.leaving.clear()
        assert sorted(self.inside) == sorted(self.model.inside)

    @rule(entry=st.booleans())
    def arrive(self, entry: bool) -> None:
        self.settle()
        number = self.count = self.count + 1
        self.go[number] = self.loop.create_future()
        self.tasks[number] = self.loop.create_task(self.come(number, entry))
        if self.model.inflight < self.model.limit:
            self.model.inside.append(number)
        elif len(self.model.queue) < MOST_QUEUED:
            self.model.queue.append(number)
        self.settle()
        known = {*self.model.inside, *self.model.queue}
        assert (number in known) == (number not in self.outcomes)
        assert number in known or self.outcomes[number] == "full"

    @rule(data=st.data())
    @precondition(lambda self: self.model.inside)
    def leave(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(self.model.inside))
        if not self.go[number].done():
            self.go[number].set_result(None)
        self.leaving.add(number)

    @rule(data=st.data())
    @precondition(lambda self: self.alive())
    def cancel(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(self.alive()))
        self.tasks[number].cancel()
        if number in self.model.queue:
            self.model.queue.remove(number)
        else:
            self.leaving.add(number)

    def alive(self) -> list[int]:
        return [*self.model.inside, *self.model.granted, *self.model.queue]

    @rule()
    def try_enter(self) -> None:
        got = self.gate.try_enter()
        assert got == (self.model.inflight < self.model.limit)
        self.model.taken += got

    @rule()
    @precondition(lambda self: self.model.taken)
    def give_back(self) -> None:
        self.gate.leave()
        self.model.taken -= 1
        self.model.pump()

    @rule(limit=st.integers(1, 6))
    def resize(self, limit: int) -> None:
        self.gate.resize(limit)
        self.model.limit = limit
        self.model.pump()

    @invariant()
    def the_gate_is_its_model(self) -> None:
        if hasattr(self, "model"):
            assert self.gate.inflight == self.model.inflight
            assert self.gate.queued() == len(self.model.queue)

    def teardown(self) -> None:
        if not hasattr(self, "model"):
            return
        while self.model.taken:
            self.give_back()
        while alive := self.alive():
            self.tasks[alive[0]].cancel()
            if alive[0] in self.model.queue:
                self.model.queue.remove(alive[0])
            self.leaving.add(alive[0])
            self.settle()
        self.settle()
        statistics: Any = self.gate.statistics()
        assert (statistics.inflight, statistics.queued) == (0, 0)
        assert statistics.admitted == statistics.finished
        assert set(self.outcomes) == set(self.tasks)
        self.loop.close()


@pytest.mark.timeout(120)
def test_a_gate_is_what_its_model_says() -> None:
    run_state_machine_as_test(
        GateMachine, settings=settings(max_examples=60, stateful_step_count=40, deadline=None, derandomize=True)
    )
