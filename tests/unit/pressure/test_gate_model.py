"""A stateful test of the gate against a model: its invariants hold under every sequence of calls.

It is short by default; `PENSTOCK_STEPS=1000000` and `-o timeout=0 -o faulthandler_timeout=0` run more steps.
Other tests cover order, shedding from a full queue and fair shares.
"""

import asyncio
import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from penstock.errors import Overloaded
from tests.unit.pressure.driving import GATES, LOOPS

STEPS_PER_EXAMPLE = 50
STEPS = int(os.environ.get("PENSTOCK_STEPS", "2000"))
MAX_WAIT_S, MAX_QUEUED, RESERVE = 0.05, 6, 1
# the step of the clock; a timer that is due runs in the next turn
TURN_S = 0.02


class GateMachine(RuleBasedStateMachine):
    """Tasks at a gate and the model: `inside` has the tasks that hold a permit, `ended` the outcomes."""

    core = "chosen"

    def __init__(self) -> None:
        super().__init__()
        self.loop = LOOPS["asyncio"]()
        self.gate = GATES[self.core](2, max_wait_s=MAX_WAIT_S, reserve=RESERVE, max_queued=MAX_QUEUED)
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self.inside: dict[int, asyncio.Event] = {}
        self.ended: dict[int, str] = {}
        self.order: list[int] = []
        self.by_hand = 0
        self.most_allowed = 2 + RESERVE
        self.turn()

    def turn(self) -> None:
        """Run one turn of the loop."""
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()

    def at_once(self, call: Callable[[], Any]) -> Any:
        """Make a call at once, as a callback of the loop."""
        asyncio._set_running_loop(self.loop)
        try:
            return call()
        finally:
            asyncio._set_running_loop(None)

    async def visit(self, name: int, how: dict[str, Any]) -> None:
        try:
            async with self.gate.entry(**how) if how else self.gate:
                self.order.append(name)
                event = self.inside[name] = asyncio.Event()
                try:
                    await event.wait()
                finally:
                    del self.inside[name]
            self.ended[name] = "done"
        except Overloaded as problem:
            self.ended[name] = problem.reason
        except asyncio.CancelledError:
            self.ended[name] = "cancelled"
            raise

    @rule(
        how=st.one_of(
            st.just({}),
            st.fixed_dictionaries({"priority": st.integers(0, 3), "key": st.sampled_from([None, "a", "b"])}),
            st.just({"deadline_s": 0.04}),
        )
    )
    def come(self, how: dict[str, Any]) -> None:
        name = len(self.tasks)
        self.tasks[name] = self.loop.create_task(self.visit(name, how))

    @rule()
    def try_enter(self) -> None:
        # a gate has no loop and no bound before its first use
        free = self.gate.inflight < (self.gate.bound or 1)
        assert self.at_once(self.gate.try_enter) is free
        self.by_hand += free

    @precondition(lambda self: self.by_hand)
    @rule()
    def leave(self) -> None:
        self.gate.leave()
        self.by_hand -= 1

    @precondition(lambda self: self.by_hand and self.gate.queued())
    @rule()
    def leave_and_cancel_who_is_next(self) -> None:
        self.leave()
        for task in self.tasks.values():
            if getattr(task._fut_waiter, "state", None) == 1:  # type: ignore[attr-defined]
                task.cancel()

    @precondition(lambda self: self.inside)
    @rule(data=st.data())
    def go(self, data: st.DataObject) -> None:
        self.inside[data.draw(st.sampled_from(sorted(self.inside)))].set()

    @precondition(lambda self: self.tasks)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.tasks[data.draw(st.integers(0, len(self.tasks) - 1))].cancel()

    @rule(limit=st.integers(1, 4))
    def resize(self, limit: int) -> None:
        free, waiting = limit - self.gate.inflight, self.gate.queued()
        granted = self.gate.granted
        self.gate.resize(limit)
        if not any(self.gate.sheds):
            assert self.gate.granted - granted >= max(0, min(free, waiting))

    @rule()
    def one_turn(self) -> None:
        self.turn()

    @rule()
    def time_passes(self) -> None:
        self.loop.now_s += TURN_S
        self.turn()

    @invariant()
    def permits_are_balanced(self) -> None:
        # (1), (2): the held permits are the granted ones that were not given back
        assert self.gate.inflight >= 0
        known = len(self.inside) + self.by_hand + self.gate.granted
        # a task leaves in the step that runs its `finally`, and enters in the step in which it is resumed
        assert self.gate.inflight == known
        self.most_allowed = max(self.gate.limit + RESERVE, min(self.most_allowed, self.gate.inflight))
        assert self.gate.inflight <= self.most_allowed
        assert self.gate.admitted == self.gate.statistics().finished + self.gate.inflight - self.gate.granted

    @invariant()
    def no_task_waits_while_there_is_room(self) -> None:
        # (3), (5): at every moment, not only after a turn
        assert not self.gate.queued() or self.gate.inflight >= self.gate.bound

    @invariant()
    def the_queue_is_bounded_in_number_and_in_time(self) -> None:
        assert self.gate.queued() <= MAX_QUEUED
        assert self.gate.oldest_wait_s() <= MAX_WAIT_S + TURN_S

    def teardown(self) -> None:
        for task in self.tasks.values():
            task.cancel()
        while not all(task.done() for task in self.tasks.values()):
            self.turn()
        # (7): every arrival has ended in exactly one way (a task cancelled before its first step did not arrive)
        never_ran = {name for name, task in self.tasks.items() if name not in self.ended}
        assert all(self.tasks[name].cancelled() for name in never_ran)
        for _ in range(self.by_hand):
            self.gate.leave()
        found = self.gate.statistics()
        assert (found.inflight, found.queued, self.gate.granted) == (0, 0, 0)
        assert found.admitted == found.finished
        self.loop.close()


def run_with(core: str, machine: type[GateMachine]) -> Any:
    name = f"{machine.__name__}On{core.capitalize()}"
    case = type(name, (machine,), {"core": core}).TestCase  # type: ignore[attr-defined]
    case.settings = settings(
        max_examples=max(1, STEPS // STEPS_PER_EXAMPLE),
        stateful_step_count=STEPS_PER_EXAMPLE,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    return case


if "chosen" in GATES:
    TestTheChosenCore = run_with("chosen", GateMachine)
TestThePlainCore = run_with("plain", GateMachine)
