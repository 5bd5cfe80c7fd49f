"""Stuck tasks in random worlds are exactly the stuck tasks of a model of ten lines."""

import asyncio
import functools
import random

import pytest

from penstock.tasks.detectors.stuck import stuck_tasks
from tests.unit.tasks.graph.conftest import settle

GENEROUS_S = 5.0


def stuck(*tasks):
    return {found.name for found in stuck_tasks(tasks, GENEROUS_S)}


HOLDERS = {
    "tuple": lambda event: (event,),
    "dict": lambda event: {"event": [event]},
    "closure": lambda event: lambda: event,
    "method": lambda event: event.set,
    "partial": lambda event: functools.partial(print, event),
    "iterator": lambda event: iter([event]),
}


async def _play(wait, *held):
    if wait is None:
        await asyncio.sleep(600)
    elif isinstance(wait, list):
        await asyncio.gather(*wait) if len(wait) > 1 else await wait[0]
    else:
        await wait.wait()


class World:
    """Tasks that hold events and wait for one, for a task or two that were before them, or for the time."""

    def __init__(self, chance, start):
        count = chance.randrange(2, 14)
        events = [asyncio.Event() for _ in range(count)]
        self.held = {at: {e for e in range(count) if chance.random() < 0.15} for at in range(count)}
        self.waits = {}
        self.tasks = []
        for at in range(count):
            self.waits[at] = waits = self._choose(chance, at, count)
            wait = (
                None if waits is None else events[waits] if isinstance(waits, int) else [self.tasks[t] for t in waits]
            )
            held = [HOLDERS[chance.choice(sorted(HOLDERS))](events[e]) for e in sorted(self.held[at])]
            self.tasks.append(start(_play(wait, *held), str(at)))
        self.kept = {e for e in range(count) if chance.random() < 0.1}
        self.outside = [events[e] for e in self.kept]

    @staticmethod
    def _choose(chance, at, count):
        draw = chance.random()
        if draw < 0.08:
            return None
        if draw < 0.4 and at > 1:
            return tuple(chance.sample(range(at), chance.choice((1, 2))))
        return chance.randrange(count)

    def stuck(self):
        able, reached = set(), set(self.kept)
        while True:
            more = {at for at in self.waits if at not in able and self._can_run(at, able, reached)}
            if not more:
                return {str(at) for at in self.waits if at not in able}
            able |= more
            reached |= {e for at in able for e in self.held[at]}

    def _can_run(self, at, able, reached):
        waits = self.waits[at]
        if waits is None:
            return True
        return waits in reached if isinstance(waits, int) else any(task in able for task in waits)


@pytest.mark.parametrize("seed", range(60))
def test_random_worlds_have_the_stuck_tasks_of_the_model(loop, start, seed):
    world = World(random.Random(seed), start)
    settle(loop)
    assert stuck(*world.tasks) == world.stuck()
    # for any subset of the tasks: never one too many
    asked = random.Random(seed).sample(world.tasks, len(world.tasks) // 2)
    assert stuck(*asked) <= world.stuck()
    # however short the time: never one too many
    for budget_s in (0.00002, 0.0001, 0.0003, 0.001):
        assert {found.name for found in stuck_tasks(world.tasks, budget_s)} <= world.stuck()
