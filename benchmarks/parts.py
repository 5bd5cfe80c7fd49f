"""The parts of the benchmark, each with its arms, rows, goals and words."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial

from benchmarks import arms as loops
from benchmarks.executors import arms as executors
from benchmarks.executors import suite as executor_suite
from benchmarks.http import suite as http
from benchmarks.machine import Placement, place
from benchmarks.method.trial import Effort, Trial
from benchmarks.micro import suite as micro
from benchmarks.net import suite as net
from benchmarks.net.servers import Servers
from benchmarks.pressure import arms as pressure
from benchmarks.pressure import curve
from benchmarks.pressure import suite as pressure_suite
from benchmarks.report import chart
from benchmarks.report.text import Words
from benchmarks.tasks import arms as tasks
from benchmarks.tasks import suite as task_suite
from benchmarks.workers import arms as workers
from benchmarks.workers import suite as worker_suite

__all__ = ["PARTS", "Part", "Plan"]

FULL = Effort(micro_s=0.02, micro_repeats=5, warmup_s=0.1, warm_s=0.3, http_s=1.5)
QUICK = Effort(micro_s=0.01, micro_repeats=3, warmup_s=0.1, warm_s=0.2, http_s=1.0)
# many rows: short measurements in more rounds, because a process differs more from the next than a moment does
LOOPS = Effort(micro_s=0.02, micro_repeats=3, warmup_s=0.04, warm_s=0.2, http_s=0.5)
EXECUTOR_S, QUICK_EXECUTOR_S = 0.6, 0.3  # per arm, trial and round
# rows of part `io`; all other rows on loops are those of part `loops`
IO_ROWS = ("TLS: *", "UDP: *", "pipe: *", "spawn *", "communicate*", "* beside a busy thread, p99")


@dataclass(frozen=True, slots=True)
class Plan:
    """The trials of a run, their placement on CPUs, the end of a round, and notes on what is left out."""

    trials: list[Trial]
    placement: Placement | str
    end_round: Callable[[], None] = lambda: None
    notes: Callable[[Iterable[str]], list[str]] = lambda rows: []


@dataclass(frozen=True, slots=True)
class Part:
    """Rows that are measured, judged and reported together. `plan(is_quick)` makes the trials for this machine."""

    arms: tuple[str, ...]
    available: Callable[[list[str]], tuple[list[str], list[str]]]
    describe: Callable[[str], str]
    plan: Callable[[bool], Plan]
    words: Words
    paint: chart.Paint = chart.bars
    rounds: tuple[int, int] = (5, 2)  # of a full run and of a quick one


def is_io(trial: Trial) -> bool:
    """Return whether a trial of the loops belongs to part `io`."""
    return any(fnmatchcase(trial.rows[0], pattern) for pattern in IO_ROWS)


def _loops(is_quick: bool) -> Plan:
    plan = _on_loops()
    return replace(plan, trials=[trial for trial in plan.trials if not is_io(trial)])


def _io(is_quick: bool) -> Plan:
    plan = _on_loops()
    return replace(plan, trials=[trial for trial in plan.trials if is_io(trial)])


def _on_loops() -> Plan:
    placement = place()
    workers, servers = micro.Workers(placement, LOOPS), Servers(placement)
    bench = net.Bench(servers, placement, LOOPS)
    duet = placement.client is not None
    trials = [*micro.trials(workers, duet=duet), *net.trials(bench), *http.trials(bench)]
    return Plan(trials, placement, _all(workers.retire, servers.retire), _loop_notes)


def _loop_notes(rows: Iterable[str]) -> list[str]:
    return [*net.notes(rows), *http.notes(rows)]


def _all(*calls: Callable[[], None]) -> Callable[[], None]:
    def call() -> None:
        for one in calls:
            one()

    return call


def _executors(is_quick: bool) -> Plan:
    trials = executor_suite.trials(QUICK_EXECUTOR_S if is_quick else EXECUTOR_S)
    return Plan(trials, "not pinned: workers may use every core", notes=lambda rows: executor_suite.notes())


def _tasks(is_quick: bool) -> Plan:
    effort, placement = QUICK if is_quick else FULL, place()
    workers, servers = micro.Workers(placement, effort), Servers(placement)
    trials = task_suite.trials(workers, net.Bench(servers, placement, effort))
    return Plan(trials, placement, _all(workers.retire, servers.retire), task_suite.notes)


def _pressure(is_quick: bool) -> Plan:
    effort, placement = QUICK if is_quick else FULL, place()
    workers = micro.Workers(placement, effort, pressure_suite.WORKER)
    runs = pressure_suite.Runs(placement, pressure_suite.QUICK if is_quick else pressure_suite.FULL)
    trials = pressure_suite.trials(runs, workers)
    return Plan(trials, placement, workers.retire, partial(pressure_suite.notes, runs))


def _workers(is_quick: bool) -> Plan:
    where = "not pinned: the server's processes and the client share all CPUs"
    return Plan(worker_suite.trials(QUICK if is_quick else FULL), where)


LOOP_WORDS = Words(
    title="Benchmarks of loops",
    cost="Micro rows: CPU time per operation. Rows of servers: the server's CPU time (user + system) per request. "
    "Memory: resident bytes per connection.",
    rates="By the wall clock: requests per second and p99 latency",
    kind="loop",
    axis="CPU time",
    short="ratios",
)
IO_WORDS = replace(
    LOOP_WORDS,
    title="Benchmarks of TLS, datagrams, pipes and processes",
    cost=f"{LOOP_WORDS.cost} Beside a busy thread: p99 latency.",
)
EXECUTOR_WORDS = Words(
    title="Benchmarks of executors",
    cost="Wall-clock time of a call awaited in the loop. Each arm has one worker per core; for the loop's delay it has "
    "two, all of them busy. The delay is the p99 of the time from a timer's due time, one each millisecond, until a "
    "callback that the timer schedules has run.",
    rates="Calls per second and p99 latency",
    kind="executor",
    axis="wall clock",
)
TASK_WORDS = Words(
    title="Benchmarks of task telemetry",
    cost="Micro rows: CPU time per operation. Echo and HTTP rows: the server's CPU time (user + system) per request. "
    "Memory: resident bytes per task, with its coroutine and future. Snapshots: how long the loop is blocked.",
    rates="By the wall clock: requests per second and p99 latency",
    kind="arm",
    axis="CPU time",
)
PRESSURE_WORDS = Words(
    title="Benchmarks under pressure",
    cost="Goodput: whole answers within 100 ms of the request's due time, in percent of what the service can do at "
    "that load; here more is better. Latencies count from the due time. Micro rows: CPU time.",
    rates="Good answers per second, and their p99 latency",
    kind="guard",
    axis="goodput, in percent of what the service can do",
)
WORKER_WORDS = Words(
    title="Benchmarks of servers with worker processes",
    cost="Wall-clock time per request at saturation, over all workers; the client takes part of the same CPUs. Memory: "
    "of all processes of an idle server. PSS counts a page that n processes share as one n-th in each.",
    rates="Requests per second and p99 latency",
    kind="server",
    axis="wall clock and memory",
)
LOOP_ARMS = tuple(arm for arm in loops.ARMS if arm != "rsloop")  # it is there for its TLS
PARTS: dict[str, Part] = {
    "loops": Part(LOOP_ARMS, loops.available, loops.describe, _loops, LOOP_WORDS, rounds=(9, 2)),
    "io": Part(tuple(loops.ARMS), loops.available, loops.describe, _io, IO_WORDS, rounds=(9, 2)),
    "executors": Part(tuple(executors.ARMS), executors.available, executors.describe, _executors, EXECUTOR_WORDS),
    "tasks": Part(tuple(tasks.ARMS), tasks.available, tasks.describe, _tasks, TASK_WORDS),
    "pressure": Part(
        tuple(pressure.ARMS), pressure.available, pressure.describe, _pressure, PRESSURE_WORDS, curve.curves
    ),
    "workers": Part(tuple(workers.ARMS), workers.available, workers.describe, _workers, WORKER_WORDS),
}
