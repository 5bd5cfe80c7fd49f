"""The short table of a part: at most ten rows between markers, for the documents."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

from benchmarks.method.results import Judged, Results
from benchmarks.method.trial import LIMIT, base_arm
from benchmarks.report.text import Words, bound, cost, judgement, losses, means, piped, verdicts

__all__ = ["ROWS", "block", "chosen", "extracted", "filled"]

ROWS = 10
# the facts of a run that the short table repeats, beside the arms
FACTS = ("cpu", "kernel", "python", "when")
NAMES = {LIMIT: "a C server"}
BLOCK = r"<!-- table: {name} -->\n(.*?)<!-- end -->"


def block(name: str, results: Results, facts: dict[str, str], words: Words) -> str:
    """Return the table with its sentences, between the markers `table: NAME` and `end`."""
    told = f"{_scope(results)} {judgement(results)} {losses(results, words)}"
    content = "\n\n".join([piped(_table(results, words)), *means(results), told, _facts(results, facts)])
    return f"<!-- table: {name} -->\n{content}\n<!-- end -->"


def extracted(name: str, text: str) -> str | None:
    """Return what is between the markers of a table, None where there are none."""
    found = re.search(BLOCK.format(name=name), text, re.DOTALL)
    return found[1] if found else None


def filled(name: str, text: str, content: str) -> str | None:
    """Return the text with the content between the markers, None where there are none."""
    marked = f"<!-- table: {name} -->\n{content}<!-- end -->"
    new, count = re.subn(BLOCK.format(name=name), lambda _: marked, text, flags=re.DOTALL)
    return new if count else None


def chosen(results: Results) -> list[str]:
    """Return the rows to show: the first that fits each pattern of the goals file, then the worst losses."""
    patterns, rows = results.goals.short, results.rows
    found = [row for pattern in patterns for row in _fitting(rows, pattern)]
    lost = sorted((row for row in rows if results.better_medians(row)), key=lambda row: _worst(results, row))
    return list(dict.fromkeys([*found, *lost]))[:ROWS]


def _fitting(rows: list[str], pattern: str) -> list[str]:
    found = [row for row in rows if fnmatchcase(row, pattern)]
    return found if pattern == "*" else found[:1]


def _worst(results: Results, row: str) -> float:
    ratios = (results.ratio(row, arm) for arm in results.better_medians(row))
    return min(ratio.median for ratio in ratios if ratio is not None)


def _table(results: Results, words: Words) -> list[list[str]]:
    rows, is_ratio = chosen(results), words.short == "ratios"
    others = [arm for arm in results.columns if arm != results.subject]
    prefix = "vs " if is_ratio else ""
    header = ["row", results.subject, *(f"{prefix}{NAMES.get(arm, arm)}" for arm in others)]
    columns = {"goal": [_goals(results, row) for row in rows], "verdict": [verdicts(results, row) for row in rows]}
    shown = {name: cells for name, cells in columns.items() if any(cells)}
    lines = [
        [row, *_cells(results, row, others, is_ratio), *(cells[at] for cells in shown.values())]
        for at, row in enumerate(rows)
    ]
    return [[*header, *shown], *lines]


def _cells(results: Results, row: str, others: list[str], is_ratio: bool) -> list[str]:
    own = results.cost(row, results.subject)
    read = results.ratio if is_ratio else results.cost
    cells = (read(row, arm) for arm in others)
    ratio_or_cost = ["" if c is None else f"{c.median:.2f}" if is_ratio else cost(c.median, row) for c in cells]
    return ["" if own is None else cost(own.median, row), *ratio_or_cost]


def _goals(results: Results, row: str) -> str:
    """Return the goals of a row, each bound with its arms and their outcomes."""
    found: dict[str, list[str]] = {}
    for one in results.judged(row):
        told = _told(one, row)
        arm = f" ({one.goal.arm})" if one.goal.metric == "cost" else ""
        found.setdefault(told, []).append(f"{one.outcome if results.has_twin else ''}{arm}".strip())
    return "; ".join(f"{told} {', '.join(outcomes)}".strip() for told, outcomes in found.items())


def _told(one: Judged, row: str) -> str:
    """Return the bound with the side that it needs: of two arms, or that of the best other."""
    if one.goal.metric == "cost":
        return bound(one.goal, row)
    if one.goal.metric == "speedup":
        return f"{bound(one.goal, row)} vs {one.goal.against}"
    return f"{one.goal}: {bound(one.goal, row)}"


def _scope(results: Results) -> str:
    return f"{len(chosen(results))} of {len(results.rows)} rows."


def _facts(results: Results, facts: dict[str, str]) -> str:
    arms = {base_arm(arm) for arm in results.columns}
    return "; ".join(f"{key}: {value}" for key, value in facts.items() if key in {*FACTS, *arms}) + "."
