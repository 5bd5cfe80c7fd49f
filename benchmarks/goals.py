"""The goals of each part of the benchmark: what penstock has to reach on each row, and against whom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from benchmarks.claims import Claim
from benchmarks.pressure import costs
from benchmarks.pressure import suite as pressure
from benchmarks.tasks.suite import BYTES, SERVED, SNAPSHOT

__all__ = ["BEST", "EXECUTOR_GOALS", "LOOP_GOALS", "PRESSURE_GOALS", "TASK_GOALS", "Goals"]

BEST = "the best other"  # whichever of the other arms is cheapest on the row


@dataclass(frozen=True, slots=True)
class Goals:
    """How many times cheaper than `reference` each row has to be, at least; the first pattern that fits a row counts.

    `own` is for rows that are held against another row of the same arm: which one, and how many times it at most.
    Rows `beside` them are not judged: nothing of an executor is in them. `claims` hold any arm against any other. The
    `subject` is the arm that is judged, `ours` are the arms that are no rivals of it, by the name before an @, and
    `shown` the arms that a column has the ratio to, all if empty.
    """

    reference: str
    ratios: tuple[tuple[str, float], ...]
    own: Mapping[str, tuple[str, float]] = field(default_factory=dict)
    beside: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()
    subject: str = "penstock"
    ours: tuple[str, ...] = ("penstock",)
    shown: tuple[str, ...] = ()

    def of(self, row: str) -> float | None:
        """The least ratio to the reference, None where the row has none."""
        return next((ratio for pattern, ratio in self.ratios if fnmatchcase(row, pattern)), None)


LOOP_GOALS = Goals(
    "uvloop",
    (
        ("call_soon *", 1.8),
        ("timer *", 1.8),
        ("threadsafe *", 1.8),
        ("create_task*", 1.5),
        ("sleep(0)*", 1.1),  # C tasks cost most here, and every loop shares them
        ("echo * 10 x 1 KiB*", 1.15),
        ("echo * 100 x 1 KiB*", 1.15),
        ("*", 0.97),
    ),
)

# No other arm has shared memory, so the best of all others is the best without it.
EXECUTOR_GOALS = Goals(
    BEST,
    (
        ("one call, median", 2.0),
        ("a call of 64 in flight", 5.0),
        ("10 MiB *", 10.0),
    ),
    own={"loop delay p99, jobs in the executor": ("loop delay p99, idle", 3.0)},
    beside=("loop delay p99, idle", "loop delay p99, the same jobs in the loop"),
)

OFF, TIME, TRACE = "penstock@off", "penstock@time", "penstock@trace"
CREATE = "asyncio.create_task*"
# Every row has an operation's cost but those of the held tasks.
COSTS = (CREATE, "sleep(0)*", "future *", "call_soon *", *SERVED)
TASK_GOALS = Goals(
    "uvloop",
    (),
    claims=(
        *(Claim(row, TIME, "times", 1.05, OFF) for row in SERVED),
        Claim(CREATE, TIME, "times", 1.15, OFF),
        *(Claim(row, TRACE, "times", 1.30, OFF) for row in COSTS),
        *(Claim(row, TIME, "beats", base=OFF, rival="uvloop") for row in COSTS),
        Claim(BYTES, TIME, "beyond", 200, OFF),
        Claim(SNAPSHOT, TIME, "cost", 5e6),
    ),
    subject=TIME,
    ours=("penstock", "factory"),
    shown=(OFF, "uvloop", "asyncio"),
)

FIXED, AUTO = "penstock@fixed", "penstock@auto"
GATES = (FIXED, AUTO)
# In percent of the service's own capacity, at 1, 2, 5 and 10 times that.
LEAST = {
    ("io", FIXED): (95, 97, 95, 95),
    ("io", AUTO): (93, 93, 93, 93),
    # each refusal costs the same processor
    ("cpu", FIXED): (93, 92, 88, 80),
    ("cpu", AUTO): (93, 92, 88, 80),
}
SERVED_NS, REFUSED_NS = 80e6, 2e6  # 0.8 of the deadline; a refusal is an answer at once
PRESSURE_GOALS = Goals(
    BEST,
    (),
    claims=(
        *(
            Claim(pressure.goodput(f"{service} at {load:g}x"), arm, "least", least)
            for (service, arm), leasts in LEAST.items()
            for load, least in zip(pressure.LOADS[1:], leasts, strict=True)
        ),
        *(Claim(pressure.falsely("* at 0.5x"), arm, "cost", 0.2) for arm in GATES),
        *(Claim(pressure.served("* at *x"), arm, "cost", SERVED_NS) for arm in GATES),
        *(Claim(pressure.refused("* at *x"), arm, "cost", REFUSED_NS) for arm in GATES),
        *(Claim(pressure.recovery("*"), arm, "cost", 0.5e9) for arm in GATES),
        *(Claim(pressure.goodput(pressure.SLOW), arm, "least", 90) for arm in GATES),
        *(
            Claim(pressure.goodput(row), arm, "least", 100)
            for row in (pressure.HEALTH, pressure.HEALTH_PORT)
            for arm in GATES
        ),
        Claim(pressure.falsely(pressure.SLOW_SERVICES), AUTO, "cost", 1),
        Claim(costs.PERMIT, FIXED, "cost", 150),
        *(Claim(row, FIXED, "cost", 500) for row in costs.REFUSALS),
        *(Claim(row, FIXED, "cost", 20e6) for row in costs.WAITERS),
    ),
    subject=FIXED,
)
