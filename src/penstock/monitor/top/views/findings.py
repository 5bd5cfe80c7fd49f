"""The view of findings: all that is wrong now, the cause first, and then the findings of the process, newest first."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from penstock.monitor.texts import place_text, printable
from penstock.monitor.top.columns import TopColumn, TopRow

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penstock.monitor.rules import Diagnosis
    from penstock.monitor.top.state import TopState

__all__ = ["COLUMNS", "finding_rows"]

MOST_ROWS = 500
COLUMNS = (
    TopColumn("when", "when", "NOW: wrong at present; else the time of a finding of the process", 8, is_number=False),
    TopColumn("kind", "kind", "the kind of fault; !! needs attention now, ! soon", 14, is_number=False),
    TopColumn(
        "text", "finding", "the fault in a sentence; the line below has all of it", 24, stretch=3, is_number=False
    ),
    TopColumn("place", "place", "the line of code", 16, rank=1, stretch=1, is_number=False),
    TopColumn("worker", "process", "the process", 8, rank=2),
)


def finding_rows(state: TopState) -> list[TopRow]:
    """Return a row for each diagnosis, and then for each finding."""
    alone = state.shown[0].pid if len(state.shown) == 1 else 0
    now = [_diagnosis(pid or alone, found) for pid, found in state.diagnoses]
    every = [(found, each.pid) for each in state.shown for found in each.findings]
    every.sort(key=lambda pair: pair[0].get("wall_time_s") or 0.0, reverse=True)
    return [*now, *(_finding(found, pid) for found, pid in every[:MOST_ROWS])]


def _diagnosis(pid: int, found: Diagnosis) -> TopRow:
    sign = "!!" if found.severity == "error" else "!"
    cells = {"when": "NOW", "kind": f"{sign} {found.kind}", "text": printable(found.sentence)}
    cells |= {"place": place_text(found.place), "worker": str(pid)}
    details = (printable(found.sentence), f"next step: {printable(found.next_step)}")
    key = ("now", pid, found.kind, cells["place"])
    return TopRow(key, cells, {}, "bad" if found.severity == "error" else "warn", details)


def _finding(found: Mapping[str, Any], pid: int) -> TopRow:
    clock = time.strftime("%H:%M:%S", time.localtime(found.get("wall_time_s") or 0.0))
    cells = {"when": clock, "kind": printable(found.get("kind") or "-"), "text": printable(found.get("message") or "-")}
    cells |= {"place": place_text(found.get("site")), "worker": str(pid)}
    stack = (found.get("evidence") or {}).get("stack") or ()
    frames = tuple(f"    {printable(frame)}" for frame in stack[:3]) if isinstance(stack, (list, tuple)) else ()
    task = f"task {printable(found.get('task'))}   " if found.get("task") else ""
    details = (cells["text"], f"{task}loop {printable(found.get('loop') or '-')}", *frames)
    return TopRow((pid, found.get("since_s"), cells["kind"], cells["text"]), cells, {}, "", details)
