"""Fills the tables of docs/performance.md from the summaries in `results`, and draws the chart of the README.

The tables are in git, so they need no run; the chart is drawn from the raw file of part `loops`, which is not.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.pop(0)  # see compare.py
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.parts import PARTS
from benchmarks.report import chart, raw, short

__all__ = ["copy_tables", "draw_chart", "main"]

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
TARGET = ROOT / "docs" / "performance.md"
CHART = ROOT / "docs" / "images" / "performance"
CHART_PART = "loops"


def main() -> None:
    complaints = copy_tables(TARGET)
    complaints += draw_chart(raw.FOLDER / f"{CHART_PART}.json")
    if complaints:
        raise SystemExit("\n".join(complaints))


def copy_tables(target: Path) -> list[str]:
    """Put the short table of each summary between its markers in the target; return a line for each that fails."""
    if not target.exists():
        return [f"{target} is not there"]
    text, complaints = target.read_text(), []
    for name in PARTS:
        new, complaint = _with_table(name, text, target)
        text = new or text
        complaints += [complaint] if complaint else []
    target.write_text(text)
    return complaints


def _with_table(name: str, text: str, target: Path) -> tuple[str | None, str | None]:
    source = RESULTS / f"{name}.md"
    table = short.extracted(name, source.read_text()) if source.exists() else None
    if table is None:
        return None, f"{source} has no table {name}: run `make bench`"
    new = short.filled(name, text, table)
    return new, None if new else f"{target} has no marker <!-- table: {name} -->"


def draw_chart(source: Path) -> list[str]:
    """Draw the chart of the README from a raw file; return a line where it fails."""
    if not source.exists():
        return [f"the chart stays as it is: {source} is not there (raw files are not kept in git): run `make bench`"]
    run = raw.load(source)
    CHART.parent.mkdir(parents=True, exist_ok=True)
    complaint = chart.draw(chart.front, run.results, CHART, run.facts, PARTS[CHART_PART].words.axis)
    return [complaint] if complaint else []


if __name__ == "__main__":
    main()
