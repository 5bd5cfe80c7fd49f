"""The measurements of `penstock doctor --measure`, and its report."""

import asyncio
import gc

from penstock.cli import measure
from penstock.cli.measure import Cost, costs_as_json, render_costs
from penstock.config import Config, LoopConfig
from penstock.tasks.observers.factory import LEVELS

COSTS = [Cost("off", "the loop", 1000.0, 100.0, 500.0, 100.0), Cost("time", "the loop", 1131.5, 113.2, 507.4, 101.5)]


def test_each_level_is_measured_on_a_loop_of_its_own_and_all_are_closed(monkeypatch):
    made, asked = [], []
    new_event_loop = measure.penstock.new_event_loop

    def remembered(config):
        asked.append(config.loop)
        made.append(new_event_loop(config))
        return made[-1]

    monkeypatch.setattr(measure.penstock, "new_event_loop", remembered)
    config = Config(loop=LoopConfig(poll_every_turns=7))
    costs = measure.measure(config, rounds=2)
    assert [cost.level for cost in costs] == list(LEVELS)
    assert len(made) == len(LEVELS) and all(loop.is_closed() for loop in made)
    assert asked == [config.loop] * len(LEVELS)
    assert all(cost.task_ns > 0 and cost.step_ns > 0 for cost in costs)
    assert (costs[0].task_percent, costs[0].step_percent) == (100, 100)
    assert gc.isenabled()


def test_a_level_that_costs_shows(monkeypatch):
    """A level that does more for each task must not be told as cheap as off."""
    watched = measure._watched

    def slow(config, level):
        loop, watcher = watched(config, level)
        if level == "trace":
            make = loop.create_task
            loop.create_task = lambda coro, **kwargs: (sum(range(2000)), make(coro, **kwargs))[1]
        return loop, watcher

    monkeypatch.setattr(measure, "_watched", slow)
    costs = {cost.level: cost for cost in measure.measure(Config(), rounds=3)}
    assert costs["trace"].task_percent > costs["count"].task_percent + 20


def test_the_order_of_levels_moves_on_each_round():
    assert [measure._turned("abc", by)[0] for by in range(-1, 4)] == ["c", "a", "b", "c", "a"]


def test_a_percentage_is_the_median_of_the_rounds_not_a_ratio_of_medians():
    assert measure._percent([110, 220, 5000], [100, 200, 1000]) == 110.0


def test_the_table_lines_up():
    lines = render_costs(COSTS)
    assert lines[0] == "telemetry (kept by the loop)"
    assert lines[2].split() == ["off", "1000", "ns", "100", "%", "500", "ns", "100", "%"]
    assert lines[3].split() == ["time", "1132", "ns", "113", "%", "507", "ns", "102", "%"]
    assert len({len(line) for line in lines[1:]}) == 1


def test_the_data_is_by_level():
    assert costs_as_json(COSTS)["time"] == {
        "watcher": "the loop",
        "task_ns": 1131.5,
        "task_percent": 113.2,
        "step_ns": 507.4,
        "step_percent": 101.5,
    }


def test_a_loop_is_at_the_level_it_is_measured_for():
    for level in LEVELS:
        loop, watcher = measure._watched(Config(), level)
        try:
            assert watcher
            loop.run_until_complete(asyncio.sleep(0))
            observer = measure.observer_of(loop)
            if level == "off" and observer is None:
                continue
            assert observer.statistics().level == level
        finally:
            loop.close()
