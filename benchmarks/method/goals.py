"""Goals are bounds on the costs of arms. They are data: `goals.toml`, one entry a line."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["BEST", "METRICS", "OPERATORS", "UNITS", "Cause", "Goal", "Goals", "MeanGoal"]

FILE = Path(__file__).resolve().parent.parent / "goals.toml"
BEST = "the best other"  # the cheapest rival on the row
METRICS = ("speedup", "ratio", "extra", "cost", "calls")
OPERATORS = ("<", "<=", ">=")
UNITS = {"": 1.0, "%": 1.0, "B": 1.0, "ns": 1.0, "µs": 1e3, "ms": 1e6}


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound on `arm` on every row that the pattern `row` fits.

    The metric says what is bounded. "speedup": the cost of `against` over the arm's. "ratio": the arm's cost over that
    of `against`, or over its own on `against_row`. "extra": the arm's cost minus that of `against`, or minus its own on
    `against_row`. "cost": the arm's cost itself. "calls": its system calls, which are counted apart. With `if_ahead`,
    the goal holds on rows where that arm is cheaper than `against`; with `plain`, on plain rows only.
    """

    row: str
    metric: str
    arm: str
    operator: str
    value: float
    source: str
    unit: str = ""
    against: str = ""
    against_row: str = ""
    if_ahead: str = ""
    plain: bool = False

    @property
    def bound(self) -> float:
        """The value in the unit of samples: ns, bytes, percent or a plain ratio."""
        return self.value * UNITS[self.unit]

    def __str__(self) -> str:
        if self.metric == "cost":
            return self.arm
        if self.metric == "calls":
            return f"{self.arm}, system calls"
        if self.metric == "extra":
            return f"{self.arm} minus {self._other}"
        over = f"{self.against} / {self.arm}" if self.metric == "speedup" else f"{self.arm} / {self._other}"
        return f"{over}, where {self.if_ahead} is cheaper" if self.if_ahead else over

    @property
    def _other(self) -> str:
        return f"its {self.against_row!r}" if self.against_row else self.against


@dataclass(frozen=True, slots=True)
class MeanGoal:
    """A least value of the geometric mean, over the plain rows, of the cost of `against` over the subject's."""

    against: str
    value: float
    source: str


@dataclass(frozen=True, slots=True)
class Cause:
    """The known cause of a loss on the rows that a pattern fits."""

    row: str
    cause: str


@dataclass(frozen=True, slots=True)
class Goals:
    """The goals of one part, and the roles of its arms.

    The `subject` is judged; `ours` are no rivals of it, by the name before an @. `reference` is the base of the chart,
    `shown` are the arms with a column of ratios (all if empty), rows `beside` are measured but not judged, and `short`
    has the patterns of the rows in the short table, the first row that fits each. Rows that fit a pattern of
    `not_plain` are in no geometric mean; `causes` are those of losses.
    """

    subject: str
    ours: tuple[str, ...]
    reference: str
    entries: tuple[Goal, ...] = ()
    shown: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    short: tuple[str, ...] = ()
    not_plain: tuple[str, ...] = ()
    means: tuple[MeanGoal, ...] = ()
    causes: tuple[Cause, ...] = ()

    @classmethod
    def load(cls, part: str) -> Goals:
        """Return the goals of one part of `goals.toml`."""
        known: dict[str, Any] = dict(_read()[part])
        entries = tuple(Goal(**entry) for entry in known.pop("goals"))
        means = tuple(MeanGoal(**entry) for entry in known.pop("means", ()))
        causes = tuple(Cause(**entry) for entry in known.pop("causes", ()))
        lists: Any = {name: tuple(value) if isinstance(value, list) else value for name, value in known.items()}
        return cls(entries=entries, means=means, causes=causes, **lists)

    def is_plain(self, row: str) -> bool:
        """Return whether a row is in the geometric means and under the goals of plain rows."""
        return not any(fnmatchcase(row, pattern) for pattern in self.not_plain)

    def cause(self, row: str) -> str:
        """Return the known cause of a loss on a row, empty where there is none."""
        return next((one.cause for one in self.causes if fnmatchcase(row, one.row)), "")

    def of(self, row: str) -> list[Goal]:
        """Return the goals of a row: of several with the same arm, metric and base, the first that fits."""
        found: dict[tuple[str, str, str], Goal] = {}
        for goal in self.entries:
            if fnmatchcase(row, goal.row) and (self.is_plain(row) or not goal.plain):
                found.setdefault((goal.arm, goal.metric, goal.against), goal)
        return list(found.values())


@cache
def _read() -> dict[str, Any]:
    return tomllib.loads(FILE.read_text())
