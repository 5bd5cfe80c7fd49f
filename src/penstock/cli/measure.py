"""`penstock doctor --measure`: the cost of each level of task telemetry, per task and per step.

One loop for each level; the loops run interleaved, in rounds, on the thread's CPU clock. The results are medians, and
medians of the ratios to level off in the same round.
"""

import asyncio
import gc
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import penstock
from penstock.config import Config
from penstock.tasks.observers.factory import TaskFactory
from penstock.tasks.observers.registry import LEVELS, observer_of

__all__ = ["Cost", "costs_as_json", "measure", "render_costs"]

ROUNDS = 21
TASKS = 1000
# concurrent tasks, and steps of each: about those of a quiet service
STEPPING, STEPS = 20, 100


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of one level in nanoseconds per task and per step, and in percent of level off."""

    level: str
    # the source of the records: the loop, or penstock.tasks.TaskFactory
    watcher: str
    task_ns: float
    task_percent: float
    step_ns: float
    step_percent: float


def measure(config: Config, rounds: int = ROUNDS) -> list[Cost]:
    """Return the cost of each level on loops built from the `loop` group. It takes one to two seconds."""
    loops = {level: _watched(config, level) for level in LEVELS}
    task_ns: dict[str, list[float]] = {level: [] for level in LEVELS}
    step_ns: dict[str, list[float]] = {level: [] for level in LEVELS}
    try:
        # the first round warms up
        for number in range(-1, rounds):
            for level in _turned(LEVELS, number):
                took_ns = [_timed(loops[level][0], work) for work in (_tasks, _steps)]
                if number >= 0:
                    task_ns[level].append(took_ns[0] / TASKS)
                    step_ns[level].append(took_ns[1] / (STEPPING * STEPS))
    finally:
        for loop, _ in loops.values():
            loop.close()
    return [_cost(level, loops[level][1], task_ns, step_ns) for level in LEVELS]


def _watched(config: Config, level: str) -> tuple[asyncio.AbstractEventLoop, str]:
    """Return a loop at the level, and the source of its records."""
    loop = penstock.new_event_loop(Config(loop=config.loop))
    observer = observer_of(loop)
    if observer is None:
        factory = TaskFactory(level=level)
        loop.set_task_hook(factory.hook)
        return loop, "TaskFactory"
    observer.set_level(level)
    return loop, "TaskFactory" if isinstance(observer, TaskFactory) else "the loop"


def _turned(levels: Sequence[str], by: int) -> Sequence[str]:
    by %= len(levels)
    return [*levels[by:], *levels[:by]]


def _timed(loop: asyncio.AbstractEventLoop, work: Callable[[], Awaitable[None]]) -> int:
    """Return the CPU time of the work in nanoseconds, without garbage collection."""

    async def timed() -> int:
        began_ns = time.thread_time_ns()
        await work()
        return time.thread_time_ns() - began_ns

    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return loop.run_until_complete(timed())
    finally:
        if was_enabled:
            gc.enable()


async def _tasks() -> None:
    for _ in range(TASKS):
        await asyncio.create_task(_nothing())


async def _steps() -> None:
    await asyncio.gather(*[_step() for _ in range(STEPPING)])


async def _nothing() -> None:
    pass


async def _step() -> None:
    for _ in range(STEPS):
        await asyncio.sleep(0)


def _cost(level: str, watcher: str, task_ns: dict[str, list[float]], step_ns: dict[str, list[float]]) -> Cost:
    return Cost(
        level,
        watcher,
        round(statistics.median(task_ns[level]), 1),
        _percent(task_ns[level], task_ns["off"]),
        round(statistics.median(step_ns[level]), 1),
        _percent(step_ns[level], step_ns["off"]),
    )


def _percent(found: Sequence[float], off: Sequence[float]) -> float:
    """Return the median of the ratios in each round: a moment of load moves both values of a round."""
    pairs = zip(found, off, strict=True)
    return round(100 * statistics.median(one / max(other, 1e-9) for one, other in pairs), 1)


def render_costs(costs: Sequence[Cost]) -> list[str]:
    """Return a heading and a line for each level."""
    lines = [f"telemetry (kept by {costs[-1].watcher})", "  level     a task  of off     a step  of off"]
    for cost in costs:
        pairs = ((cost.task_ns, cost.task_percent), (cost.step_ns, cost.step_percent))
        lines.append(f"  {cost.level:5}" + "".join(f"{ns:8.0f} ns  {percent:4.0f} %" for ns, percent in pairs))
    return lines


def costs_as_json(costs: Sequence[Cost]) -> dict[str, dict[str, Any]]:
    """Return the costs as data, by level."""
    return {cost.level: {name: value for name, value in asdict(cost).items() if name != "level"} for cost in costs}
