"""The pressure trials: steady loads, a spike, a backend that becomes slower, health checks, the cost of a gate.

Goodput is in percent of what the service without a guard can do at that load, on the arm's loop.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, pairwise

from benchmarks.machine import Placement
from benchmarks.method.trial import Sample, Trial, base_arm
from benchmarks.micro import suite as micro
from benchmarks.pressure.drive import BUCKET_S, Course, Phase, Window, drive
from benchmarks.pressure.services import HEALTH_PATH, PORT_PATH, SERVICES, SLOWER
from benchmarks.pressure.slow import ARM, refused_percent
from benchmarks.pressure.worker import ROWS

__all__ = [
    "FULL",
    "HEALTH",
    "HEALTH_PORT",
    "LOADS",
    "QUICK",
    "SLOW",
    "SLOW_SERVICES",
    "Lengths",
    "Runs",
    "falsely",
    "goodput",
    "notes",
    "recovery",
    "refused",
    "served",
    "trials",
]

LOADS = (0.5, 1, 2, 5, 10)
QUICK_LOADS = (2, 10)
SPIKE, CALM = 5, 0.5
BEFORE_SLOWER = 0.6  # 2.4 times what a backend that is four times slower can do
RECOVERED = 90.0
HEALTH, HEALTH_PORT, HEALTH_LOAD = "/healthz on new connections, cpu at 4x", "the health port, cpu at 4x", 4
SLOW = "io, backend 4x slower"
SLOW_SERVICES = "slow services with room, on auto"
WORKER = "benchmarks.pressure.worker"


def goodput(what: str) -> str:
    """Return the row with the goodput of `io at 2x` and so on."""
    return f"{what}: goodput, %"


def served(what: str) -> str:
    return f"{what}: served, p99"


def refused(what: str) -> str:
    return f"{what}: refused, p99"


def falsely(what: str) -> str:
    return f"{what}: refused, %"


def recovery(what: str) -> str:
    return f"{what}: recovered within"


@dataclass(frozen=True, slots=True)
class Lengths:
    """The lengths of the phases in seconds; measured ones are multiples of 0.25 s."""

    capacity_s: float
    warm_up_s: float
    measured_s: float
    before_s: float
    spike_s: float
    after_s: float
    slow_s: float


FULL = Lengths(capacity_s=0.75, warm_up_s=1.5, measured_s=1.5, before_s=1.0, spike_s=2.0, after_s=2.0, slow_s=4.0)
QUICK = Lengths(capacity_s=0.5, warm_up_s=1.0, measured_s=1.0, before_s=0.5, spike_s=1.0, after_s=1.5, slow_s=3.0)


@dataclass(slots=True)
class Runs:
    """Runs with the same arrivals for every arm, and new arrivals each time a row is repeated."""

    placement: Placement
    lengths: Lengths
    late_us: float = 0.0  # the worst p99 of the client's own lateness
    _times: Counter[tuple[str, ...]] = field(default_factory=Counter)

    def __call__(self, arm: str, service: str, *phases: Phase, checked: str | None = None) -> Course:
        key = (arm, service, *(f"{phase.load}" for phase in phases))
        self._times[key] += 1
        course = drive(
            arm,
            service,
            phases,
            self.lengths.capacity_s,
            self._times[key],
            self.placement,
            checked=checked,
        )
        self.late_us = max([self.late_us, *(window.behind_p99_us or 0.0 for window in course.phases.values())])
        return course


def trials(runs: Runs, workers: micro.Workers) -> list[Trial]:
    steady = [_steady(runs, service, load) for load in LOADS for service in SERVICES]
    spikes = [_spike(runs, service) for service in SERVICES]
    costs = [Trial((row,), partial(_cost, workers, row)) for row in dict.fromkeys(chain.from_iterable(ROWS.values()))]
    return [*steady, *spikes, _slower(runs), *_health(runs), _slow_services(runs), *costs]


def notes(runs: Runs, rows: Iterable[str]) -> list[str]:
    """Return the client's own lateness as a note."""
    if not runs.late_us:
        return []
    return [f"the client itself sent {runs.late_us / 1000:.1f} ms late at most (p99, in its worst phase)"]


def _steady(runs: Runs, service: str, load: float) -> Trial:
    what = f"{service} at {load:g}x"
    rows = [goodput(what), *([falsely(what)] if load < 1 else [served(what), refused(what)])]

    def run(arm: str) -> dict[str, Sample]:
        warm_up = Phase("warm-up", load, runs.lengths.warm_up_s)
        course = runs(arm, service, warm_up, Phase("measured", load, runs.lengths.measured_s))
        return _only(rows, _samples(what, course, "measured"))

    return Trial(tuple(rows), run, quick=load in QUICK_LOADS)


def _spike(runs: Runs, service: str) -> Trial:
    what, lengths = f"{service}, {SPIKE}x spike", runs.lengths
    phases = (
        Phase("before", CALM, lengths.before_s),
        Phase("spike", SPIKE, lengths.spike_s),
        Phase("after", CALM, lengths.after_s),
    )

    def run(arm: str) -> dict[str, Sample]:
        course = runs(arm, service, *phases)
        after = course.buckets[round((lengths.before_s + lengths.spike_s) / BUCKET_S) :]
        recovered = Sample(1e9 * recovery_s(after, course.capacity_per_s))
        return {goodput(what): _samples(what, course, "spike")[goodput(what)], recovery(what): recovered}

    return Trial((goodput(what), recovery(what)), run, quick=service == "io")


def _slower(runs: Runs) -> Trial:
    rows = (goodput(SLOW), served(SLOW))

    def run(arm: str) -> dict[str, Sample]:
        before = Phase("before", BEFORE_SLOWER, runs.lengths.before_s)
        course = runs(arm, "io", before, Phase("slower", BEFORE_SLOWER, runs.lengths.slow_s, turns=True))
        return _only(rows, _samples(SLOW, course, "slower", SLOWER))

    return Trial(rows, run, quick=False)


def _health(runs: Runs) -> list[Trial]:
    by_path = Trial((goodput(HEALTH),), lambda arm: {goodput(HEALTH): _checked(runs, arm, HEALTH_PATH)})

    def ask_port(arm: str) -> dict[str, Sample]:
        # the other arms have none
        return {goodput(HEALTH_PORT): _checked(runs, arm, PORT_PATH)} if arm.startswith("penstock") else {}

    return [by_path, Trial((goodput(HEALTH_PORT),), ask_port)]


def _checked(runs: Runs, arm: str, path: str) -> Sample:
    """Make health checks while the CPU-bound service is overloaded; return the share answered 200 in time."""
    warm_up = Phase("warm-up", HEALTH_LOAD, runs.lengths.warm_up_s)
    measured = Phase("measured", HEALTH_LOAD, runs.lengths.measured_s)
    found = runs(arm, "cpu", warm_up, measured, checked=path).checked
    assert found is not None
    rate_per_s = len(found.good_us) / runs.lengths.measured_s
    return Sample(found.percent, rate_per_s, found.quantile_us(0.5), found.quantile_us(0.99))


def _slow_services(runs: Runs) -> Trial:
    """Return the trial of services with free capacity and times of up to 3 s: the share that their gates refuse."""
    row = falsely(SLOW_SERVICES)

    def run(arm: str) -> dict[str, Sample]:
        if base_arm(arm) != ARM:
            return {}  # the other arms are given a limit
        return {row: Sample(refused_percent(arm, 2 * runs.lengths.slow_s, runs.placement))}

    return Trial((row,), run)


def recovery_s(after: list[Window], capacity_per_s: float) -> float:
    """Return seconds to the end of the first of two good buckets in a row, or to the end where there are none."""
    well = [bucket.goodput(capacity_per_s) >= RECOVERED for bucket in after]
    first = next((at for at, pair in enumerate(pairwise(well)) if all(pair)), len(well) - 1)
    return (first + 1) * BUCKET_S


def _samples(what: str, course: Course, phase: str, slower: float = 1.0) -> dict[str, Sample]:
    window = course.phases[phase]
    rate_per_s = window.good / window.seconds
    share = 100 * window.refused / max(1, window.due)
    found = {
        goodput(what): Sample(course.goodput(phase, slower), rate_per_s, window.good_p50_us, window.good_p99_us),
        falsely(what): Sample(share),
    }
    for row, p99_us in ((served(what), window.good_p99_us), (refused(what), window.refused_p99_us)):
        if p99_us is not None:
            found[row] = Sample(p99_us * 1000)
    return found


def _cost(workers: micro.Workers, row: str, arm: str) -> dict[str, Sample]:
    return {row: workers.measure(arm, row)} if row in ROWS.get(base_arm(arm), ()) else {}


def _only(rows: Iterable[str], found: dict[str, Sample]) -> dict[str, Sample]:
    return {row: found[row] for row in rows if row in found}
