"""Every task is counted: a seeded program makes tasks in every way there is, cancels and fails them at every await, and
keeps a list by hand that the telemetry must agree with."""

import asyncio
import gc
import random
import sys
from asyncio import create_task as bound_early
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest

import penstock
from penstock.loop.selector import SelectorEventLoop as SelectorLoop
from penstock.tasks.observers.factory import TaskFactory
from penstock.tasks.observers.registry import observer_of
from penstock.tasks.spawning import spawn
from tests.support.loops import FOREIGN
from tests.unit.tasks.conftest import settle

SEEDS = range(6)
ACTIONS, MOST_DEPTH, QUIET_TURNS = 150, 3, 80
HAS_EAGER = sys.version_info >= (3, 12)
Coro = Coroutine[Any, Any, Any]


class Planned(Exception):
    """An exception that a task raises."""


@dataclass(eq=False)
class Entry:
    """One coroutine that was given to one task. `outcome` is what its own frame saw, None before it has ended."""

    fails_at: int | None = None
    is_stubborn: bool = False
    is_abandoned: bool = False
    is_started: bool = False
    outcome: str | None = None
    task: asyncio.Task | None = None
    coro: Any = None

    def ended(self) -> str | None:
        if self.outcome is None and self.coro is not None and self.coro.cr_frame is None:
            # cancelled before its first step: its frame has never run
            assert not self.is_started
            return "cancelled"
        return self.outcome


@dataclass
class Program:
    """The tasks it made, by hand. `makes_directly`: by asyncio.Task(), which no task factory is asked for."""

    loop: asyncio.AbstractEventLoop
    rng: random.Random
    makes_directly: bool
    entries: list[Entry] = field(default_factory=list)
    gates: list[asyncio.Future] = field(default_factory=list)
    ways: Counter[str] = field(default_factory=Counter)

    def coro(self, depth: int, **choices: Any) -> Coro:
        rng = self.rng
        entry = Entry(
            fails_at=rng.randrange(4) if rng.random() < 0.3 else None, is_stubborn=rng.random() < 0.1, **choices
        )
        self.entries.append(entry)
        coro = self.body(entry, depth)
        # to keep the coroutine of an abandoned task would keep the task
        entry.coro = None if entry.is_abandoned else coro
        return coro

    async def body(self, entry: Entry, depth: int) -> None:
        entry.is_started = True
        try:
            if entry.is_abandoned:
                await self.loop.create_future()
            entry.task = asyncio.current_task()
            for step in range(self.rng.randrange(4)):
                if entry.fails_at == step:
                    raise Planned
                await self.wait(depth)
            if entry.fails_at is not None:
                raise Planned
            entry.outcome = "completed"
        except asyncio.CancelledError:
            entry.outcome = "completed" if entry.is_stubborn else "cancelled"
            if not entry.is_stubborn:
                raise
        except GeneratorExit:
            entry.outcome = "lost"
            raise
        except BaseException:
            entry.outcome = "failed"
            raise
        finally:
            entry.task = None

    async def wait(self, depth: int) -> None:
        kind = self.rng.random()
        if kind < 0.4:
            await asyncio.sleep(0)
        elif kind < 0.6:
            gate = self.loop.create_future()
            self.gates.append(gate)
            await gate
        elif depth < MOST_DEPTH:
            await self.rng.choice((self.one, self.group, self.together, self.shielded))(depth + 1)

    # --- the ways to make a task

    def make(self, depth: int, **choices: Any) -> asyncio.Task:
        ways: dict[str, Callable[[Coro], Any]] = {
            "create_task": asyncio.create_task,
            "bound early": bound_early,
            "the loop's": self.loop.create_task,
            "ensure_future": asyncio.ensure_future,
            "named": lambda coro: asyncio.create_task(coro, name="named"),
        }
        if not choices:
            # it keeps its task: none may be abandoned
            ways["spawn"] = spawn
        if self.makes_directly:
            # not with eager_start=True: such a task may be over before any loop hears of it
            ways["directly"] = lambda coro: asyncio.Task(coro, loop=self.loop)
        way = self.rng.choice(sorted(ways))
        self.ways[way] += 1
        return ways[way](self.coro(depth, **choices))

    async def one(self, depth: int) -> None:
        task = self.make(depth)
        if self.rng.random() < 0.7:
            await task

    async def group(self, depth: int) -> None:
        self.ways["group"] += 1
        async with asyncio.TaskGroup() as group:
            for _ in range(self.rng.randrange(4)):
                coro = self.coro(depth)
                try:
                    group.create_task(coro)
                except RuntimeError:
                    # an eager one before it has failed: the group is shutting down and makes no more
                    coro.close()
                    self.entries.pop()
                    raise

    async def together(self, depth: int) -> None:
        self.ways["gather"] += 1
        coros = [self.coro(depth) for _ in range(self.rng.randrange(4))]
        await asyncio.gather(*coros, return_exceptions=self.rng.random() < 0.5)

    async def shielded(self, depth: int) -> None:
        self.ways["shield"] += 1
        await asyncio.shield(self.coro(depth))

    # --- the program

    async def main(self, check: Callable[[], None]) -> None:
        for action in range(ACTIONS):
            self.act()
            await asyncio.sleep(0)
            if action % 50 == 49:
                await self.quiet()
                check()
        while self.gates:
            self.gates, gates = [], self.gates
            for gate in gates:
                if not gate.done():
                    gate.set_result(None)
            await self.quiet()

    def act(self) -> None:
        rng, kind = self.rng, self.rng.random()
        running = [entry.task for entry in self.entries if entry.task is not None]
        if kind < 0.5:
            task = self.make(0)
            if rng.random() < 0.1:
                task.cancel()
        elif kind < 0.55:
            self.make(MOST_DEPTH, is_abandoned=True)
        elif kind < 0.75 and running:
            rng.choice(running).cancel()
        elif self.gates:
            gate = self.gates.pop(rng.randrange(len(self.gates)))
            if not gate.done():
                if rng.random() < 0.3:
                    gate.set_exception(Planned())
                else:
                    gate.set_result(None)

    async def quiet(self) -> None:
        """Until every task has ended or waits for a gate."""
        for _ in range(QUIET_TURNS):
            await asyncio.sleep(0)
        gc.collect()
        await asyncio.sleep(0)

    def by_hand(self) -> dict[str, int]:
        outcomes = Counter(entry.ended() or "live" for entry in self.entries)
        kinds = ("completed", "failed", "cancelled", "lost", "live")
        return {"created": len(self.entries), **{kind: outcomes[kind] for kind in kinds}}


def told(observer: Any) -> dict[str, int]:
    statistics = observer.statistics()
    kinds = ("created", "completed", "failed", "cancelled", "lost", "live")
    return {kind: getattr(statistics, kind) for kind in kinds}


def watched(kind: str, eager: bool) -> tuple[asyncio.AbstractEventLoop, Any]:
    """A loop and its observer."""
    make = asyncio.eager_task_factory if eager else None
    if kind in FOREIGN:
        loop, factory = FOREIGN[kind](), TaskFactory(make)
        loop.set_task_factory(factory)
        return loop, factory
    if kind == "pure":
        loop, factory = SelectorLoop(), TaskFactory()
        loop.set_task_hook(factory.hook)
        loop.set_task_factory(make)
        return loop, factory
    loop = penstock.new_event_loop()
    loop.set_task_factory(make)
    return loop, observer_of(loop)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("eager", [False, pytest.param(True, marks=pytest.mark.skipif(not HAS_EAGER, reason="3.12+"))])
@pytest.mark.parametrize("kind", [*FOREIGN, "pure", "penstock"])
def test_every_task_is_counted_with_its_outcome(kind, eager, seed):
    loop, observer = watched(kind, eager)
    try:
        if observer is None:
            pytest.skip("penstock's loop has no observer of its own")
        loop.set_exception_handler(lambda _, context: None)
        program = Program(loop, random.Random(seed), makes_directly=not isinstance(observer, TaskFactory))

        def check() -> None:
            expected = program.by_hand()
            # the main task
            expected["created"] += 1
            expected["live"] += 1
            assert told(observer) == expected
            assert len(observer.live()) == expected["live"]
            assert sum(site.created for site in observer.sites()) == expected["created"]

        loop.run_until_complete(program.main(check))
        settle(loop)
        by_hand = program.by_hand()
        # the main task and settle's
        assert told(observer) == by_hand | {"created": by_hand["created"] + 2, "completed": by_hand["completed"] + 2}
        assert by_hand["live"] == 0
        # the program did what it is for
        assert min(by_hand[outcome] for outcome in ("completed", "failed", "cancelled", "lost")) > 0
        assert {"create_task", "bound early", "the loop's", "ensure_future", "group", "gather"} <= set(program.ways)
    finally:
        loop.close()


def test_a_task_made_by_its_class_is_beyond_a_factory(loop):
    """The documented behaviour of TaskFactory, and the differences of the native loop."""
    factory = TaskFactory()
    loop.set_task_factory(factory)

    async def nothing():
        pass

    async def main():
        await asyncio.Task(nothing(), loop=loop)

    loop.run_until_complete(main())
    settle(loop)
    assert told(factory)["created"] == 2
