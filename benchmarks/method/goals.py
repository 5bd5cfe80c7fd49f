"""Goals are bounds on the costs of arms. They are data: `goals.toml`, one entry a line."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["BEST", "METRICS", "OPERATORS", "UNITS", "Goal", "Goals"]

FILE = Path(__file__).resolve().parent.parent / "goals.toml"
BEST = "the best other"  # the cheapest rival on the row
METRICS = ("speedup", "ratio", "extra", "cost")
OPERATORS = ("<", "<=", ">=")
UNITS = {"": 1.0, "%": 1.0, "B": 1.0, "ns": 1.0, "µs": 1e3, "ms": 1e6}


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound on `arm` on every row that the pattern `row` fits.

    The metric says what is bounded. "speedup": the cost of `against` over the arm's. "ratio": the arm's cost over that
    of `against`, or over its own on `against_row`. "extra": the arm's cost minus that of `against`. "cost": the arm's
    cost itself. With `if_ahead`, the goal holds on rows where that arm is cheaper than `against`.
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

    @property
    def bound(self) -> float:
        """The value in the unit of samples: ns, bytes, percent or a plain ratio."""
        return self.value * UNITS[self.unit]

    def __str__(self) -> str:
        if self.metric == "cost":
            return self.arm
        if self.metric == "extra":
            return f"{self.arm} minus {self.against}"
        over = f"{self.against} / {self.arm}" if self.metric == "speedup" else f"{self.arm} / {self._other}"
        return f"{over}, where {self.if_ahead} is cheaper" if self.if_ahead else over

    @property
    def _other(self) -> str:
        return f"its {self.against_row!r}" if self.against_row else self.against


@dataclass(frozen=True, slots=True)
class Goals:
    """The goals of one part, and the roles of its arms.

    The `subject` is judged; `ours` are no rivals of it, by the name before an @. `reference` is the base of the chart,
    `shown` are the arms with a column of ratios (all if empty), rows `beside` are measured but not judged, and `short`
    has the patterns of the rows in the short table, the first row that fits each.
    """

    subject: str
    ours: tuple[str, ...]
    reference: str
    entries: tuple[Goal, ...] = ()
    shown: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    short: tuple[str, ...] = ()

    @classmethod
    def load(cls, part: str) -> Goals:
        """Return the goals of one part of `goals.toml`."""
        known: dict[str, Any] = dict(_read()[part])
        entries = tuple(Goal(**entry) for entry in known.pop("goals"))
        lists: Any = {name: tuple(value) if isinstance(value, list) else value for name, value in known.items()}
        return cls(entries=entries, **lists)

    def of(self, row: str) -> list[Goal]:
        """Return the goals of a row: of several with the same arm, metric and base, the first that fits."""
        found: dict[tuple[str, str, str], Goal] = {}
        for goal in self.entries:
            if fnmatchcase(row, goal.row):
                found.setdefault((goal.arm, goal.metric, goal.against), goal)
        return list(found.values())


@cache
def _read() -> dict[str, Any]:
    return tomllib.loads(FILE.read_text())
