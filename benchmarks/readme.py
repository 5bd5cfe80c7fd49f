"""Fills the README's tables from the runs' JSON: chosen rows of the loops and the worst losses, all rows of the others.

Knows the README's markers; what the numbers mean is report.py's part.
"""

from __future__ import annotations

import json
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

sys.path.pop(0)  # see compare.py
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.report import cost

__all__ = ["executor_table", "loop_table", "main"]

ROOT = Path(__file__).resolve().parent.parent
RESULTS, TARGET = ROOT / "benchmarks" / "results", ROOT / "README.md"
# The first row that fits each pattern.
CHOSEN = (
    "call_soon *",
    "timer *",
    "threadsafe*",
    "create_task*",
    "sleep(0)*",
    "echo protocol 10 x 1 KiB",
    "echo streams 100 x 1 KiB",
    "uvicorn *",
)
LOSSES = 2
# Of what the run knew of itself; the report beside the JSON has all.
NOTED = ("cpu", "kernel", "python", "when")
NAMES = {"C": "a C server"}
Row = dict[str, Any]


def main() -> None:
    text = TARGET.read_text()
    for name, marker, table in TABLES:
        source = RESULTS / f"{name}.json"
        try:
            run = json.loads(source.read_text())
        except OSError as error:
            print(f"{source}: {error.strerror}; make bench makes it", file=sys.stderr)
            continue
        text = filled(text, marker, table(run))
    TARGET.write_text(text)


def filled(text: str, marker: str, table: str) -> str:
    """The text with the table between the two comments that have the marker."""
    begin, end = f"<!-- {marker}:begin -->", f"<!-- {marker}:end -->"
    before, found, rest = text.partition(begin)
    if not found:
        raise SystemExit(f"{TARGET}: no {begin}")
    return f"{before}{begin}\n{table}\n{end}{rest.partition(end)[2]}"


def loop_table(run: dict[str, Any]) -> str:
    """The chosen rows as Markdown, the worst losses after them, and what was measured on what."""
    rows, subject = run["rows"], run["subject"]
    names = chosen(rows)
    others = list(dict.fromkeys(arm for name in names for arm in rows[name]["ratios"]))
    lines = [["row", subject, *(f"vs {NAMES.get(arm, arm)}" for arm in others)], ["---", *["---:"] * (len(others) + 1)]]
    lines += [line(name, rows[name], subject, others) for name in names]
    return f"{piped(lines)}\n\n{note(run, 'loop', others)}"


def executor_table(run: dict[str, Any]) -> str:
    """Every row as Markdown: what it costs here and with the others, how many times the best of those, and the goal."""
    rows, subject = run["rows"], run["subject"]
    others = [arm for arm in run["arms"] if arm != subject]
    lines = [["row", subject, *others, "best other costs", "goal"], ["---", *["---:"] * (len(others) + 3)]]
    for name, row in rows.items():
        costs = (row["cost_ns"].get(arm) for arm in (subject, *others))
        shown = ["" if found is None else cost(found["median"]) for found in costs]
        lines.append([name, *shown, times(row), goal(row)])
    return f"{piped(lines)}\n\n{note(run, 'executor', others)}"


def task_table(run: dict[str, Any]) -> str:
    """Every row as Markdown: what it costs on each arm."""
    rows, subject = run["rows"], run["subject"]
    others = [arm for arm in run["arms"] if arm != subject]
    lines = [["row", subject, *others], ["---", *["---:"] * (len(others) + 1)]]
    for name, row in rows.items():
        costs = (row["cost_ns"].get(arm) for arm in (subject, *others))
        written = bytes_of if name.endswith(", bytes") else cost
        lines.append([name, *("" if found is None else written(found["median"]) for found in costs)])
    return f"{piped(lines)}\n\n{note(run, 'arm', others)}"


def pressure_table(run: dict[str, Any]) -> str:
    """Every row as Markdown: what was found on each arm, and which claims hold."""
    rows, subject = run["rows"], run["subject"]
    others = [arm for arm in run["arms"] if arm != subject]
    lines = [["row", subject, *others, "goal"], ["---", *["---:"] * (len(others) + 2)]]
    for name, row in rows.items():
        found = (row["cost_ns"].get(arm) for arm in (subject, *others))
        lines.append([name, *("" if one is None else cost(one["median"], name) for one in found), claimed(run, name)])
    return f"{piped(lines)}\n\n{note(run, 'guard', others)}"


def claimed(run: dict[str, Any], name: str) -> str:
    """The bounds on a row, each with the arms that it is for, and which of them keep it not."""
    arms: dict[str, list[tuple[str, bool]]] = {}
    for one in run.get("claims", []):
        if one["row"] == name:
            side = "at least" if one["claim"]["kind"] == "least" else "at most"
            bound = f"{side} {cost(one['claim']['most'], name)}"
            arms.setdefault(bound, []).append((one["claim"]["arm"].partition("@")[2], one["met"]))
    return "; ".join(f"{bound}: {kept(of_bound)}" for bound, of_bound in arms.items())


def kept(arms: list[tuple[str, bool]]) -> str:
    """Which arms keep a bound."""
    told = {"met": [arm for arm, met in arms if met], "NOT met": [arm for arm, met in arms if not met]}
    return ", ".join(f"{word} ({', '.join(found)})" for word, found in told.items() if found)


def bytes_of(found: float) -> str:
    """A cost that is no time."""
    return f"{found:.0f} B"


def times(row: Row) -> str:
    """How many times our cost the best other's is."""
    ratio = row["ratios"].get(row["best"])
    return "" if ratio is None else f"{ratio['median']:.1f} times"


def goal(row: Row) -> str:
    """What is to be reached, and whether it is."""
    if row["goal"] is None:
        return ""
    met = "?" if row["met"] is None else "met" if row["met"] else "NOT met"
    if row["own"] is None:
        return f"{row['goal']:g} times: {met}"
    return f"below {row['goal']:g} times idle: {met} ({row['own']['median']:.1f})"


def piped(lines: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def note(run: dict[str, Any], kind: str, others: list[str]) -> str:
    """How many rows are lost, and what was measured on what."""
    rows, subject = run["rows"], run["subject"]
    lost = sum(bool(row["ahead"]) for row in rows.values())
    facts = "; ".join(f"{key}: {value}" for key, value in run["facts"].items() if key in {*NOTED, subject, *others})
    return f"{len(rows)} rows measured; another {kind} is ahead of {subject} on {lost} of them. {facts}."


def chosen(rows: dict[str, Row]) -> list[str]:
    """The names to show: ours to choose, then the rows that others win by most."""
    found = [next((name for name in rows if fnmatchcase(name, pattern)), None) for pattern in CHOSEN]
    lost = sorted((name for name in rows if rows[name]["ahead"]), key=lambda name: worst(rows[name]))
    return list(dict.fromkeys([*filter(None, found), *lost[:LOSSES]]))


def worst(row: Row) -> float:
    """The ratio to the arm that is furthest ahead."""
    return min(float(row["ratios"][arm]["median"]) for arm in row["ahead"])


def line(name: str, row: Row, subject: str, others: list[str]) -> list[str]:
    ratios = (row["ratios"].get(arm) for arm in others)
    return [name, cost(row["cost_ns"][subject]["median"]), *("" if r is None else f"{r['median']:.2f}" for r in ratios)]


TABLES = (
    ("compare", "bench", loop_table),
    ("executors", "bench-executors", executor_table),
    ("tasks", "bench-tasks", task_table),
    ("pressure", "bench-pressure", pressure_table),
)

if __name__ == "__main__":
    main()
