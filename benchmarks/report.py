"""A run's results as text: tables for the terminal and for Markdown (the same cells), and JSON with every sample."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from benchmarks import claims
from benchmarks.arms import LIMIT
from benchmarks.goals import BEST
from benchmarks.results import Results, Spread, Verdict
from benchmarks.trial import IN_BYTES, IN_PERCENT

__all__ = ["Words", "cost", "to_json", "to_markdown", "to_terminal"]

Table = list[list[str]]
CLAIMS = "What is claimed, and what was found"
LEGEND = (
    "Cost: median, with half the spread between quartiles. {cost} Ratios are paired by round, then the median: above "
    "1, {subject} is cheaper."
)


@dataclass(frozen=True, slots=True)
class Words:
    """What a part of the benchmark calls its things in its report."""

    title: str
    cost: str  # what a cost is, as sentences
    rates: str  # the second table's heading
    kind: str  # what the arms are
    axis: str  # of the chart


def to_terminal(results: Results, notes: Sequence[str], words: Words) -> str:
    parts = ["\n".join(notes), _aligned(cost_table(results))]
    if rates := rate_table(results):
        parts.append(f"{words.rates}\n{_aligned(rates)}")
    if judged := claim_table(results):
        parts.append(f"{CLAIMS}\n{_aligned(judged)}")
    return "\n\n".join([*parts, legend(results, words), summary(results, words)])


def to_markdown(results: Results, notes: Sequence[str], words: Words) -> str:
    parts = [f"# {words.title}", "\n".join(f"- {note}" for note in notes), _piped(cost_table(results))]
    parts.append(legend(results, words))
    if rates := rate_table(results):
        parts += [f"## {words.rates}", _piped(rates)]
    if judged := claim_table(results):
        parts += [f"## {CLAIMS}", _piped(judged)]
    return "\n\n".join([*parts, summary(results, words)]) + "\n"


def to_json(results: Results, facts: dict[str, str]) -> str:
    rows = {row: _row_json(results, row) for row in results.rows}
    known = {"facts": facts, "subject": results.subject, "arms": results.arms, "rows": rows}
    if judged := claims.judge(results):
        known["claims"] = claims.to_json(judged)
    return json.dumps(known, indent=1) + "\n"


def legend(results: Results, words: Words) -> str:
    return LEGEND.format(subject=results.subject, cost=words.cost)


def cost_table(results: Results) -> Table:
    """A line a row: what each arm costs, the ratios, the goal, and who is ahead of the subject.

    Where goals are held against the best other, one column has the ratio to it, and its name.
    """
    arms = _columns(results)
    others = [BEST] if results.goals.reference == BEST else [arm for arm in results.arms if arm != results.subject]
    if results.goals.shown:
        others = [arm for arm in others if arm in results.goals.shown]
    header = ["row", *arms, *(f"vs {arm}" for arm in others), "goal / met", "ahead of us"]
    return [header, *(_cost_line(results, row, arms, others) for row in results.rows)]


def rate_table(results: Results) -> Table:
    arms = _columns(results)
    rows = [row for row in results.rows if results.has_client(row)]
    return [["row", *arms], *([row, *(_rate(results, row, arm) for arm in arms)] for row in rows)] if rows else []


def claim_table(results: Results) -> Table:
    """A line for each claim on each row; empty where nothing is claimed."""
    judged = claims.judge(results)
    lines = [[one.row, str(one.claim), *_found(one), "yes" if one.met else "NO"] for one in judged]
    return [["row", "claim", "found", "bound", "met"], *lines] if lines else []


def _found(one: claims.Judged) -> tuple[str, str]:
    if one.claim.kind in ("times", "beats"):
        return _ratio(one.found), "below 1" if one.claim.kind == "beats" else f"at most {one.claim.most:.2f}"
    side = "at least" if one.claim.kind == "least" else "at most"
    return _cost(one.found, one.row), f"{side} {cost(one.claim.most, one.row)}"


def summary(results: Results, words: Words) -> str:
    verdicts = [results.verdict(row) for row in results.rows]
    judged = [verdict for verdict in verdicts if verdict.met is not None]
    behind = [row for row, verdict in zip(results.rows, verdicts, strict=True) if verdict.ahead]
    met = [bool(verdict.met) for verdict in judged] + [one.met for one in claims.judge(results)]
    text = f"{sum(met)} of {len(met)} goals met."
    return f"{text} Rows where another {words.kind} is ahead of {results.subject}: {'; '.join(behind) or 'none'}."


def _columns(results: Results) -> list[str]:
    limited = any(results.samples(row, LIMIT) for row in results.rows)
    return [*results.arms, LIMIT] if limited else results.arms


def _cost_line(results: Results, row: str, arms: Sequence[str], others: Sequence[str]) -> list[str]:
    verdict = results.verdict(row)
    costs = [_cost(results.cost_ns(row, arm), row) for arm in arms]
    ratios = [_best(verdict) if arm == BEST else _ratio(verdict.ratios.get(arm)) for arm in others]
    return [row, *costs, *ratios, _goal(verdict), ", ".join(verdict.ahead)]


def cost(cost_ns: float, row: str = "") -> str:
    """A cost without its spread."""
    scale, unit = _unit(cost_ns, row)
    return f"{_three(cost_ns / scale)} {unit}"


def _cost(cost_ns: Spread | None, row: str) -> str:
    if cost_ns is None:
        return "-"
    scale, unit = _unit(cost_ns.median, row)
    half = (cost_ns.high - cost_ns.low) / 2
    return f"{_three(cost_ns.median / scale)} ±{_three(half / scale)} {unit}"


def _unit(cost_ns: float, row: str) -> tuple[float, str]:
    if row.endswith(IN_BYTES):
        return 1.0, "B"
    if row.endswith(IN_PERCENT):
        return 1.0, "%"
    return (1.0, "ns") if cost_ns < 10_000 else (1e3, "µs") if cost_ns < 10_000_000 else (1e6, "ms")


def _three(value: float) -> str:
    """Three digits that count, no more."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _ratio(ratio: Spread | None) -> str:
    return "-" if ratio is None else f"{ratio.median:.2f} ({ratio.low:.2f}-{ratio.high:.2f})"


def _best(verdict: Verdict) -> str:
    found = None if verdict.best is None else verdict.ratios.get(verdict.best)
    return "-" if found is None else f"{_ratio(found)} {verdict.best}"


def _goal(verdict: Verdict) -> str:
    if verdict.goal is None:
        return ""
    met = "?" if verdict.met is None else "yes" if verdict.met else "NO"
    if verdict.own is None:
        return f"{verdict.goal:.2f} / {met}"
    return f"below {verdict.goal:.2f} times idle / {met}: {_ratio(verdict.own)}"


def _rate(results: Results, row: str, arm: str) -> str:
    rate, p99_us = (results.measured(row, arm, name) for name in ("rate_per_s", "p99_us"))
    if rate is None or p99_us is None:
        return "-"
    per_second = f"{rate.median / 1e3:.1f}k/s" if rate.median >= 1000 else f"{_three(rate.median)}/s"
    return f"{per_second} {p99_us.median:.0f} µs"


def _aligned(table: Table) -> str:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = (_aligned_line(line, widths) for line in [table[0], ["-" * width for width in widths], *table[1:]])
    return "\n".join(lines)


def _aligned_line(line: Sequence[str], widths: Sequence[int]) -> str:
    numbers = (cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))
    return "  ".join([line[0].ljust(widths[0]), *numbers]).rstrip()


def _piped(table: Table) -> str:
    rule = ["---", *["---:"] * (len(table[0]) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [table[0], rule, *table[1:]])


def _row_json(results: Results, row: str) -> dict[str, object]:
    verdict = results.verdict(row)
    measured = {arm: found for arm in _columns(results) if (found := results.samples(row, arm))}
    samples = {arm: [asdict(sample) for sample in found] for arm, found in measured.items()}
    costs = {arm: asdict(cost) for arm in samples if (cost := results.cost_ns(row, arm)) is not None}
    return {"cost_ns": costs, **asdict(verdict), "samples": samples}
