"""Fills the README's table from a run's JSON: a few chosen rows, and every row that another loop wins by most.

Knows the README's two markers; what the numbers mean is report.py's part.
"""

from __future__ import annotations

import json
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

__all__ = ["main", "table"]

ROOT = Path(__file__).resolve().parent.parent
SOURCE, TARGET = ROOT / "benchmarks" / "results" / "compare.json", ROOT / "README.md"
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
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
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else SOURCE
    try:
        run = json.loads(source.read_text())
    except OSError as error:
        raise SystemExit(f"{source}: {error.strerror}; make it by compare.py --json {source}") from None
    before, _, rest = TARGET.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    TARGET.write_text(f"{before}{BEGIN}\n{table(run)}\n{END}{after}")


def table(run: dict[str, Any]) -> str:
    """The chosen rows as Markdown, the worst losses after them, and what was measured on what."""
    rows, subject = run["rows"], run["subject"]
    names = chosen(rows)
    others = list(dict.fromkeys(arm for name in names for arm in rows[name]["ratios"]))
    lines = [["row", subject, *(f"vs {NAMES.get(arm, arm)}" for arm in others)], ["---", *["---:"] * (len(others) + 1)]]
    lines += [line(name, rows[name], subject, others) for name in names]
    lost = sum(bool(row["ahead"]) for row in rows.values())
    note = f"{len(rows)} rows measured; another loop is ahead of {subject} on {lost} of them."
    facts = "; ".join(f"{key}: {value}" for key, value in run["facts"].items() if key in {*NOTED, subject, *others})
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + f"\n\n{note} {facts}."


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


def cost(cost_ns: float) -> str:
    return f"{cost_ns:.0f} ns" if cost_ns < 10_000 else f"{cost_ns / 1000:.1f} µs"


if __name__ == "__main__":
    main()
