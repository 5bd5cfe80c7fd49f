"""A seeded driver for gates: arrivals, cancellations, releases, resizes and time, with invariants after each step.

The model has counts and the state of each arrival, observed from outside; the gate's figures must agree with it.
"""

import asyncio
import math
from dataclasses import dataclass, field
from typing import Any

from penstock.errors import Overloaded
from penstock.pressure import Gate, deadline
from penstock.testing import VirtualLoop, run

MOST_LIVE = 120
NANOSECOND_S = 1e-9
STYLES = "bare", "entry", "enter", "entry.enter", "guard"


@dataclass(frozen=True)
class Setup:
    """The options of a gate, and the keys and priorities of its arrivals."""

    limit: int
    max_wait_s: float
    deadline_s: float | None = None
    reserve: int = 0
    max_queued: int = 60
    keys: tuple[str | None, ...] = (None,)
    priorities: tuple[int, ...] = (2,)


SETUPS = {
    "patient": Setup(limit=4, max_wait_s=math.inf),
    "patient, classes and keys": Setup(
        limit=3, max_wait_s=math.inf, reserve=2, keys=("a", "b", "c"), priorities=(0, 1, 2, 3), max_queued=20
    ),
    "hasty": Setup(limit=4, max_wait_s=0.05, deadline_s=0.1),
    "hasty, classes and keys": Setup(
        limit=3, max_wait_s=0.05, deadline_s=0.1, reserve=1, keys=("a", "b", None), priorities=(0, 1, 2, 3)
    ),
    "never waits": Setup(limit=3, max_wait_s=0, reserve=1, priorities=(0, 2)),
    "one": Setup(limit=1, max_wait_s=0.2, max_queued=5),
}


@dataclass(eq=False)
class Arrival:
    """A request at the gate, and its outcome."""

    style: str
    priority: int
    key: str | None
    hold_s: float | None
    within_s: float | None = None
    due_s: float = math.inf
    order: int = 0
    state: str = "new"
    go: asyncio.Future[None] | None = None
    outcomes: list[str] = field(default_factory=list)


class Driver:
    """A driver of one gate through random steps on the running virtual loop, with checks after each step."""

    def __init__(self, setup: Setup, kind: type[Gate] = Gate) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        self.loop, self.dice, self.setup = loop, loop.random, setup
        self.shed_count = 0
        self.gate = kind(
            setup.limit,
            max_wait_s=setup.max_wait_s,
            deadline_s=setup.deadline_s,
            reserve=setup.reserve,
            max_queued=setup.max_queued,
            name="driven",
        )
        self.gate.on_shed = self.note_shed
        self.limit, self.scale = setup.limit, 1.0
        self.tasks: dict[asyncio.Task[None], Arrival] = {}
        self.inside: dict[Arrival, None] = {}
        self.waiting: dict[Arrival, None] = {}
        self.taken = self.untaken = 0
        self.order = 0
        self.entered_since: list[Arrival] = []
        self.last_inflight = 0
        self.arrivals = 0
        self.ended: dict[str, int] = {}
        self.reasons: dict[str, int] = {}
        self.actions = [self.arrive] * 10 + [self.release] * 6 + [self.cancel] * 3 + [self.try_enter] * 3
        self.actions += [self.give_back] * 2 + [self.resize, self.rescale, self.burst, self.hold_up]

    def note_shed(self, gate: Any, reason: str) -> None:
        self.shed_count += 1
        self.reasons[reason] = self.reasons.get(reason, 0) + 1

    async def drive(self, steps: int) -> None:
        for _ in range(steps):
            self.check()
            self.dice.choice(self.actions)()
            self.check()
            chance = self.dice.random()
            if chance < 0.5:
                await asyncio.sleep(0)
            elif chance < 0.6:
                await asyncio.sleep(self.dice.choice((0.0001, 0.001, 0.01, 0.03)))
            elif chance < 0.7:
                await self.loop.wait_all_blocked()
                self.check_quiet()
        await self.finish()

    async def finish(self) -> None:
        """Release all, with the gate closed or open, and check that nothing is left and every arrival is counted."""
        tries = {"limit": self.untaken}
        if self.dice.random() < 0.5:
            self.gate.close()
            assert self.gate.queued() == 0
            assert not self.gate.try_enter(priority=0)
            tries["closed"] = 1
        while self.tasks or self.taken:
            while self.taken:
                self.give_back()
            for arrival in list(self.inside):
                self.let_go(arrival)
            await asyncio.sleep(0.01)
            self.check()
        statistics = self.gate.statistics()
        assert (statistics.inflight, statistics.queued, statistics.oldest_wait_s) == (0, 0, 0.0)
        assert statistics.admitted == statistics.finished
        assert sum(self.ended.values()) == self.arrivals
        assert sum(statistics.sheds.values()) == self.shed_count
        assert {reason: count for reason, count in statistics.sheds.items() if count} == self.reasons
        for reason, count in self.reasons.items():
            ended = self.ended.get(reason, 0) + tries.get(reason, 0)
            # an arrival that is cancelled between its shed and its resumption ends cancelled
            assert ended <= count <= ended + self.ended.get("cancelled", 0)

    # --- steps ---

    def arrive(self) -> None:
        if len(self.tasks) >= MOST_LIVE:
            return
        dice, setup = self.dice, self.setup
        hold_s = dice.choice((None, None, 0.0, 0.001, 0.01, 0.02))
        arrival = Arrival(dice.choice(STYLES), dice.choice(setup.priorities), dice.choice(setup.keys), hold_s)
        arrival.within_s = dice.choice((None, None, None, 0.0, 0.004, 0.03))
        task = self.loop.create_task(self.come(arrival))
        self.tasks[task] = arrival
        self.arrivals += 1
        task.add_done_callback(self.is_over)

    def burst(self) -> None:
        for _ in range(self.dice.randint(2, 30)):
            self.arrive()

    def release(self) -> None:
        if self.inside:
            self.let_go(self.dice.choice(list(self.inside)))

    def let_go(self, arrival: Arrival) -> None:
        if arrival.go is not None and not arrival.go.done():
            arrival.go.set_result(None)

    def cancel(self) -> None:
        if self.tasks:
            self.dice.choice(list(self.tasks)).cancel()

    def try_enter(self) -> None:
        """Call `try_enter`: it takes a permit exactly if one is free, granted ones excluded, and creates no object."""
        priority = self.dice.choice(self.setup.priorities)
        room = self.bound() + (self.setup.reserve if priority == 0 else 0)
        free, before = self.gate.inflight < room, self.loop.statistics()
        got = self.gate.try_enter(priority=priority)
        after = self.loop.statistics()
        assert got == free, f"try_enter gave {got} with {self.gate.inflight} of {room} in flight"
        assert (before.tasks, before.futures) == (after.tasks, after.futures)
        self.taken += got
        self.untaken += not got

    def give_back(self) -> None:
        if self.taken:
            self.taken -= 1
            self.gate.leave()

    def resize(self) -> None:
        self.limit = self.dice.choice((1, 2, 3, 4, 6, 10))
        self.rebound(lambda: self.gate.resize(self.limit))

    def rescale(self) -> None:
        self.scale = self.dice.choice((1.0, 1.0, 0.5, 0.1))
        self.rebound(lambda: setattr(self.gate, "scale", self.scale))

    def rebound(self, change: Any) -> None:
        """Change the bound: a raise wakes as many waiters as there are free permits, and a lower bound wakes none."""
        before, queued, sheds = self.gate.inflight, self.gate.queued(), self.shed_count
        change()
        stayed = queued - (self.shed_count - sheds)
        reserve = self.setup.reserve if 0 in self.setup.priorities else 0
        least, most = self.bound(), self.bound() + reserve
        assert min(max(least, before), before + stayed) <= self.gate.inflight <= min(max(most, before), before + stayed)

    def hold_up(self) -> None:
        self.loop.advance(self.dice.choice((0.0001, 0.002, 0.02)))

    def is_over(self, task: asyncio.Task[None]) -> None:
        arrival = self.tasks.pop(task)
        self.waiting.pop(arrival, None)
        if task.cancelled() and not arrival.outcomes:
            arrival.outcomes.append("never began")
        elif not task.cancelled() and task.exception() is not None:
            raise AssertionError(f"{arrival}") from task.exception()
        assert len(arrival.outcomes) == 1, f"{arrival} ended {len(arrival.outcomes)} times"
        outcome = arrival.outcomes[0]
        self.ended[outcome] = self.ended.get(outcome, 0) + 1

    # --- an arrival ---

    async def come(self, arrival: Arrival) -> None:
        self.order += 1
        arrival.order, arrival.state = self.order, "waiting"
        self.waiting[arrival] = None
        before = self.loop.statistics()
        turn = before.turns
        try:
            with deadline(arrival.within_s) as due_s:
                arrival.due_s = math.inf if due_s is None else due_s
                await getattr(self, f"by_{arrival.style.replace('.', '_')}")(arrival)
        except Overloaded as refused:
            after = self.loop.statistics()
            if after.turns == turn:
                # an immediate shed creates no task and no future
                assert (before.tasks, before.futures) == (after.tasks, after.futures)
            arrival.outcomes.append(refused.reason)
        except asyncio.CancelledError:
            arrival.outcomes.append("cancelled")
        else:
            arrival.outcomes.append("done")

    async def by_bare(self, arrival: Arrival) -> None:
        arrival.priority, arrival.key = 2, None
        async with self.gate:
            await self.stay(arrival)

    async def by_entry(self, arrival: Arrival) -> None:
        async with self.gate.entry(priority=arrival.priority, key=arrival.key):
            await self.stay(arrival)

    async def by_enter(self, arrival: Arrival) -> None:
        await self.gate.enter(priority=arrival.priority, key=arrival.key)
        try:
            await self.stay(arrival)
        finally:
            self.gate.leave()

    async def by_entry_enter(self, arrival: Arrival) -> None:
        entry = self.gate.entry(priority=arrival.priority, key=arrival.key)
        await entry.enter()
        try:
            await self.stay(arrival)
        finally:
            entry.leave()

    async def by_guard(self, arrival: Arrival) -> None:
        arrival.priority, arrival.key = 2, None
        await self.gate.guard(self.stay)(arrival)

    async def stay(self, arrival: Arrival) -> None:
        self.waiting.pop(arrival)
        arrival.state = "inside"
        self.inside[arrival] = None
        self.entered_since.append(arrival)
        try:
            if arrival.hold_s is None:
                arrival.go = self.loop.create_future()
                await arrival.go
            else:
                await asyncio.sleep(arrival.hold_s)
        finally:
            arrival.state = "left"
            del self.inside[arrival]

    # --- invariants ---

    def bound(self) -> int:
        return max(1, int(self.limit * self.scale))

    def check(self) -> None:
        """Check the invariants that hold at any moment, in the middle of a turn too."""
        gate, inflight, queued = self.gate, self.gate.inflight, self.gate.queued()
        if gate.loop is None:
            return
        held = len(self.inside) + self.taken
        assert held <= inflight, f"{held} are inside and the gate counts {inflight}"
        most = max(self.bound() + self.setup.reserve, self.last_inflight)
        assert inflight <= most, f"{inflight} in flight of {most}"
        self.last_inflight = inflight
        assert not queued or inflight >= self.bound(), f"{queued} wait and only {inflight} of {self.bound()} are taken"
        assert queued <= self.setup.max_queued
        assert queued <= len(self.waiting)

    def check_quiet(self) -> None:
        """Check the invariants of an idle loop: every grant is inside and every waiting arrival is queued."""
        self.check()
        gate, held = self.gate, len(self.inside) + self.taken
        assert gate.inflight == held, f"{gate.inflight - held} permits lost"
        assert gate.queued() == len(self.waiting), f"{len(self.waiting)} wait, {gate.queued()} are queued"
        assert gate.oldest_wait_s() <= self.setup.max_wait_s + NANOSECOND_S
        for arrival in self.waiting:
            assert self.loop.time() <= arrival.due_s + NANOSECOND_S, f"{arrival} waits past its deadline"
        statistics = gate.statistics()
        assert statistics.admitted - statistics.finished == held
        if self.setup.max_wait_s == math.inf:
            self.check_order()
        self.entered_since.clear()

    def check_order(self) -> None:
        """Check that within one class and key the admitted requests came before the waiting ones."""
        newest: dict[tuple[int, str | None], int] = {}
        for arrival in self.entered_since:
            queue = arrival.priority, arrival.key
            newest[queue] = max(newest.get(queue, 0), arrival.order)
        for arrival in self.waiting:
            assert arrival.order > newest.get((arrival.priority, arrival.key), 0), f"{arrival} was overtaken"


def drive(setup: Setup, *, seed: int, steps: int, kind: type[Gate] = Gate) -> Driver:
    """Drive a new gate through `steps` steps on a virtual loop. Return the driver with its counts."""

    async def main() -> Driver:
        driver = Driver(setup, kind)
        await driver.drive(steps)
        return driver

    return run(main, seed=seed, standstill_turns=10_000)
