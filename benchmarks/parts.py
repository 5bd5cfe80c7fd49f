"""The parts of the benchmark: loops, executors, task telemetry, pressure. Each has its arms, rows, goals and words."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from benchmarks import arms as loops
from benchmarks import chart
from benchmarks.executors import arms as executors
from benchmarks.executors import suite as executor_suite
from benchmarks.goals import EXECUTOR_GOALS, LOOP_GOALS, PRESSURE_GOALS, TASK_GOALS, Goals
from benchmarks.http import suite as http
from benchmarks.machine import Placement, place
from benchmarks.micro import suite as micro
from benchmarks.net import suite as net
from benchmarks.pressure import arms as pressure
from benchmarks.pressure import curve
from benchmarks.pressure import suite as pressure_suite
from benchmarks.report import Words
from benchmarks.results import Results
from benchmarks.tasks import arms as tasks
from benchmarks.tasks import suite as task_suite
from benchmarks.trial import Effort, Trial

__all__ = ["PARTS", "Part", "Plan"]

FULL = Effort(micro_s=0.02, micro_repeats=5, fresh_s=0.2, warmup_s=0.1, warm_s=0.3, http_s=1.5)
QUICK = Effort(micro_s=0.01, micro_repeats=3, fresh_s=0.15, warmup_s=0.1, warm_s=0.2, http_s=1.0)
EXECUTOR_S, QUICK_EXECUTOR_S = 0.6, 0.3  # per arm, trial and round


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be measured, where, what is done after each round, and what the notes say is left out."""

    trials: list[Trial]
    placement: Placement | str
    end_round: Callable[[], None] = lambda: None
    notes: Callable[[Iterable[str]], list[str]] = lambda rows: []


@dataclass(frozen=True, slots=True)
class Part:
    """Rows that are measured, judged and reported together. `plan(is_quick)` says what they are here."""

    arms: tuple[str, ...]
    available: Callable[[list[str]], tuple[list[str], list[str]]]
    describe: Callable[[str], str]
    plan: Callable[[bool], Plan]
    goals: Goals
    words: Words
    draw: Callable[[Results, str, dict[str, str], str], str | None] = chart.draw
    rounds: tuple[int, int] = (5, 2)  # of a full run and of a quick one


def _loops(is_quick: bool) -> Plan:
    effort, placement = QUICK if is_quick else FULL, place()
    workers = micro.Workers(placement, effort)
    trials = [*micro.trials(workers), *net.trials(placement, effort), *http.trials(placement, effort)]
    return Plan(trials, placement, workers.retire, http.notes)


def _executors(is_quick: bool) -> Plan:
    trials = executor_suite.trials(QUICK_EXECUTOR_S if is_quick else EXECUTOR_S)
    return Plan(trials, "not pinned: workers may use every core", notes=lambda rows: executor_suite.notes())


def _tasks(is_quick: bool) -> Plan:
    effort, placement = QUICK if is_quick else FULL, place()
    workers = micro.Workers(placement, effort)
    return Plan(task_suite.trials(workers, placement, effort), placement, workers.retire, task_suite.notes)


def _pressure(is_quick: bool) -> Plan:
    effort, placement = QUICK if is_quick else FULL, place()
    workers = micro.Workers(placement, effort, pressure_suite.WORKER)
    runs = pressure_suite.Runs(placement, pressure_suite.QUICK if is_quick else pressure_suite.FULL)
    trials = pressure_suite.trials(runs, workers)
    return Plan(trials, placement, workers.retire, partial(pressure_suite.notes, runs))


LOOP_WORDS = Words(
    title="Benchmarks",
    cost="Micro rows: CPU time per operation. Echo and HTTP rows: the server's CPU time (user + system) per request.",
    rates="By the wall clock: requests per second and p99 latency",
    kind="loop",
    axis="CPU time",
)
EXECUTOR_WORDS = Words(
    title="Benchmarks of executors",
    cost="By the wall clock, as awaited in the loop. Each arm has a worker per core; for the loop's delay two, all of "
    "them at work. That delay is the p99 from when a timer is due, one each millisecond, until a callback that it "
    "schedules has run.",
    rates="Calls per second and p99 latency",
    kind="executor",
    axis="wall clock",
)
TASK_WORDS = Words(
    title="Benchmarks of task telemetry",
    cost="Micro rows: CPU time per operation. Echo and HTTP rows: the server's CPU time (user + system) per request. "
    "Memory: resident bytes per task, its coroutine and future among them. Snapshots: how long the loop stands still.",
    rates="By the wall clock: requests per second and p99 latency",
    kind="way to watch tasks",
    axis="CPU time",
)
PRESSURE_WORDS = Words(
    title="Benchmarks under pressure",
    cost="Goodput: whole answers within 100 ms of when the request was due, in percent of what the service can do at "
    "that load; here more is better. Latencies count from when the request was due. Micro rows: CPU time.",
    rates="Good answers per second, and their p99 latency",
    kind="guard",
    axis="goodput, in percent of what the service can do",
)
PARTS: dict[str, Part] = {
    "loops": Part(tuple(loops.ARMS), loops.available, loops.describe, _loops, LOOP_GOALS, LOOP_WORDS),
    "executors": Part(
        tuple(executors.ARMS), executors.available, executors.describe, _executors, EXECUTOR_GOALS, EXECUTOR_WORDS
    ),
    "tasks": Part(tuple(tasks.ARMS), tasks.available, tasks.describe, _tasks, TASK_GOALS, TASK_WORDS),
    "pressure": Part(
        tuple(pressure.ARMS),
        pressure.available,
        pressure.describe,
        _pressure,
        PRESSURE_GOALS,
        PRESSURE_WORDS,
        draw=curve.draw,
        rounds=(2, 1),
    ),
}
