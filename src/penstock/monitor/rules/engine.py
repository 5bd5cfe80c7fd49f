"""The engine: it runs all rules over a history, and puts the most probable cause first.

A symptom that a found cause explains follows the causes, so that the first line names a cause.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.monitor.rules import executors, gates, loop, machine, stalls, tasks
from penstock.monitor.rules.diagnosis import observed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from penstock.monitor.history import History
    from penstock.monitor.rules.diagnosis import Diagnosis, Rule

__all__ = ["ALL_RULES", "NOTHING", "diagnose", "first_line", "ordered"]

ALL_RULES: tuple[Rule, ...] = (
    *stalls.RULES,
    *loop.RULES,
    *tasks.RULES,
    *executors.RULES,
    *gates.RULES,
    *machine.RULES,
)
NOTHING = "nothing is wrong"


def diagnose(history: History, seconds: float = 10.0) -> list[Diagnosis]:
    """Return the diagnoses, the most probable cause first. Rates and gauges are of the last `seconds`."""
    if history.latest is None and history.silence is None:
        return []
    seen = observed(history, seconds)
    return ordered(found for rule in ALL_RULES for found in rule(seen))


def ordered(found: Iterable[Diagnosis]) -> list[Diagnosis]:
    """Return causes before the symptoms they explain; of either, errors first, then by rank."""
    found = list(found)
    kinds = {each.kind for each in found}

    def order(each: Diagnosis) -> tuple[bool, bool, float]:
        return not kinds.isdisjoint(each.explained_by), each.severity != "error", -each.rank

    return sorted(found, key=order)


def first_line(found: Sequence[Diagnosis]) -> str:
    """Return the first diagnosis in one line; that nothing is wrong if there is none."""
    return found[0].line if found else NOTHING
