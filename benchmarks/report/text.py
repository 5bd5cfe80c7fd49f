"""The tables of a run, for the terminal and as Markdown: the same cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.counts.table import Counts, table
from benchmarks.method.goals import BEST, Goal
from benchmarks.method.interval import LEAST_VALUES, Interval
from benchmarks.method.results import Judged, JudgedMean, Results
from benchmarks.method.trial import IN_BYTES, IN_PERCENT, LIMIT
from benchmarks.method.verdict import Outcome, Verdict

__all__ = [
    "Words",
    "cost",
    "cost_table",
    "goal_table",
    "judgement",
    "loss_table",
    "losses",
    "means",
    "piped",
    "to_markdown",
    "to_terminal",
]

Table = list[list[str]]
GOALS = "Goals"
COUNTS = "Instructions and system calls per operation"
COUNTS_LEGEND = "User instructions by callgrind / system calls of all threads by strace, from a run of their own."
LOSSES = "Rows on which the median of another {kind} is better"
NO_TWIN = "This run has no A/A arm, so no ratio and no goal is judged."
LEGEND = (
    "Cost: median, with half the width of its interval. {cost} Ratios are paired by round, then the median, with the "
    "95 % bootstrap interval of the median: above 1, {subject} is cheaper. A/A: the ratio of a second copy of "
    "{subject} to the first. A verdict or a met goal needs {least} rounds and an interval that clears the A/A arm's."
)


@dataclass(frozen=True, slots=True)
class Words:
    """The names that a part's report has for its things."""

    title: str
    cost: str  # what a cost is, as sentences
    rates: str  # heading of the second table
    kind: str  # what the arms are
    axis: str  # of the chart
    short: str = "costs"  # the cells of the other arms in the short table: "costs" or "ratios"


def to_terminal(results: Results, notes: Sequence[str], words: Words, counts: Counts | None = None) -> str:
    parts = ["\n".join(notes), _aligned(cost_table(results))]
    if rates := rate_table(results):
        parts.append(f"{words.rates}\n{_aligned(rates)}")
    if goals := goal_table(results):
        parts.append(f"{GOALS}\n{_aligned(goals)}")
    if lost := loss_table(results):
        parts.append(f"{LOSSES.format(kind=words.kind)}\n{_aligned(lost)}")
    if counted := _counted(results, counts):
        parts.append(f"{COUNTS}\n{_aligned(counted)}")
    return "\n\n".join([*parts, legend(results, words), judgement(results), *means(results), losses(results, words)])


def to_markdown(results: Results, notes: Sequence[str], words: Words, short: str, counts: Counts | None = None) -> str:
    """Return the summary: notes, the short table, which is Markdown already, and all tables."""
    parts = [f"# {words.title}", "\n".join(f"- {note}" for note in notes), short]
    parts += ["## All rows", piped(cost_table(results)), legend(results, words)]
    if rates := rate_table(results):
        parts += [f"## {words.rates}", piped(rates)]
    if goals := goal_table(results):
        parts += [f"## {GOALS}", piped(goals)]
    if lost := loss_table(results):
        parts += [f"## {LOSSES.format(kind=words.kind)}", piped(lost)]
    if counts is not None and (counted := _counted(results, counts)):
        parts += [f"## {COUNTS}", piped(counted), COUNTS_LEGEND, "\n".join(f"- {note}" for note in counts.notes)]
    return "\n\n".join([*parts, judgement(results), *means(results), losses(results, words)]) + "\n"


def _counted(results: Results, counts: Counts | None) -> Table:
    return table(counts, results.rows, [arm for arm in results.columns if arm != LIMIT]) if counts is not None else []


def legend(results: Results, words: Words) -> str:
    return LEGEND.format(subject=results.subject, cost=words.cost, least=LEAST_VALUES)


def cost_table(results: Results) -> Table:
    """Return a line a row: the cost of each arm, the ratios, the A/A arm's ratio, goals of speed, the verdicts.

    Where goals are held against the best other arm, one column has the ratio to it and its name.
    """
    arms = results.columns
    others = [BEST] if results.goals.reference == BEST else [arm for arm in results.arms if arm in arms]
    others = [arm for arm in others if arm != results.subject]
    if results.goals.shown:
        others = [arm for arm in arms if arm in results.goals.shown]
    header = ["row", *arms, *(f"vs {arm}" for arm in others), "A/A", "goal", "verdict"]
    return [header, *(_cost_line(results, row, arms, others) for row in results.rows)]


def rate_table(results: Results) -> Table:
    arms = results.columns
    rows = [row for row in results.rows if results.has_client(row)]
    return [["row", *arms], *([row, *(_rate(results, row, arm) for arm in arms)] for row in rows)] if rows else []


def goal_table(results: Results) -> Table:
    """Return a line for each goal on each row, but for the goals of speed, which are in the table of costs."""
    judged = [one for row in results.rows for one in results.judged(row) if one.goal.metric != "speedup"]
    lines = [[one.row, str(one.goal), _found(one), bound(one.goal, one.row), _outcome(one)] for one in judged]
    return [["row", "arm", "found", "goal", "outcome"], *lines] if lines else []


def _outcome(one: Judged | JudgedMean) -> str:
    if one.outcome is not Outcome.NOT_JUDGED:
        return one.outcome
    return f"{one.outcome}, the median {_reach(one.is_reached)}"


def _reach(is_reached: bool) -> str:
    return "reaches it" if is_reached else "misses it"


def judgement(results: Results) -> str:
    """Return how many goals are met, missed and open, and how many the medians alone reach, as sentences."""
    judged = [one for row in results.rows for one in results.judged(row)]
    reached = f"The medians alone reach {sum(one.is_reached for one in judged)} of {len(judged)} goals."
    if not results.has_twin:
        return f"{NO_TWIN} {reached}"
    outcomes = [one.outcome for one in judged]
    told = ", ".join(f"{outcomes.count(kind)} {kind}" for kind in Outcome if kind in outcomes)
    return f"Goals: {told or 'none'}. An open goal is within the noise that the A/A arm shows. {reached}"


def losses(results: Results, words: Words) -> str:
    """Return the rows on which another arm is ahead, and those on which only its median is better, as sentences."""
    behind = [row for row in results.rows if Verdict.BEHIND in results.verdicts(row).values()]
    better = [row for row in results.rows if row not in behind and results.better_medians(row)]
    told = f"Rows where {results.subject} is behind another {words.kind}: {'; '.join(behind) or 'none'}. "
    more = f"ows where the median of another {words.kind} is better: {'; '.join(better) or 'none'}."
    return f"{told}Further r{more}" if results.has_twin else f"R{more}"


def loss_table(results: Results) -> Table:
    """Return a line for each row on which the best other arm has a better median: the ratio to it and the cause."""
    lost = [row for row in results.rows if row not in results.goals.beside and results.better_medians(row)]
    header = ["row", "the best other", "A/A", "verdict", "cause"]
    lines = [
        [row, _best(results, row), _ratio(results.noise(row)), verdicts(results, row), results.goals.cause(row)]
        for row in lost
    ]
    return [header, *lines] if lines else []


def means(results: Results) -> list[str]:
    """Return a sentence for each goal of a geometric mean."""
    return [_mean(one, results) for one in results.judged_means()]


def _mean(one: JudgedMean, results: Results) -> str:
    of = "the best other of each row" if one.goal.against == BEST else one.goal.against
    noise = f"; A/A {_ratio(one.noise)}" if one.noise else ""
    told = f"Geometric mean over {one.rows} plain rows: {results.subject} is {_ratio(one.found)} times as cheap as {of}"
    return f"{told}{noise}. Goal: at least {one.goal.value:.2f}: {_outcome(one)}."


def bound(goal: Goal, row: str) -> str:
    """Return the bound of a goal as text."""
    sides = {"<": "below", "<=": "at most", ">=": "at least"}
    shown = f"{goal.value:.2f}" if goal.metric in ("speedup", "ratio", "calls") else cost(goal.bound, row)
    return f"{sides[goal.operator]} {shown}"


def _found(one: Judged) -> str:
    if one.goal.metric == "calls":
        return f"{one.found.median:.2f}"
    return _ratio(one.found) if one.goal.metric in ("speedup", "ratio") else _cost(one.found, one.row)


def _cost_line(results: Results, row: str, arms: Sequence[str], others: Sequence[str]) -> list[str]:
    costs = [_cost(results.cost(row, arm), row) for arm in arms]
    ratios = [_best(results, row) if arm == BEST else _ratio(results.ratio(row, arm)) for arm in others]
    noise = results.noise(row)
    return [row, *costs, *ratios, _ratio(noise), _goals(results, row), verdicts(results, row)]


def cost(cost_ns: float, row: str = "") -> str:
    """Return a cost without its interval, in the unit that suits it."""
    scale, unit = _unit(cost_ns, row)
    return f"{_three(cost_ns / scale)} {unit}"


def verdicts(results: Results, row: str) -> str:
    """Return the row's verdicts as text: `ahead of asyncio, uvloop; level with rloop`."""
    found = results.verdicts(row)
    words = {Verdict.AHEAD: "ahead of", Verdict.LEVEL: "level with", Verdict.BEHIND: "**behind**"}
    arms = {text: [arm for arm, one in found.items() if one is kind] for kind, text in words.items()}
    return "; ".join(f"{text} {', '.join(those)}" for text, those in arms.items() if those)


def _cost(found: Interval | None, row: str) -> str:
    if found is None:
        return "-"
    scale, unit = _unit(found.median, row)
    return f"{_three(found.median / scale)} ±{_three(found.half / scale)} {unit}"


def _unit(cost_ns: float, row: str) -> tuple[float, str]:
    if row.endswith(IN_BYTES):
        return 1.0, "B"
    if row.endswith(IN_PERCENT):
        return 1.0, "%"
    return (1.0, "ns") if cost_ns < 10_000 else (1e3, "µs") if cost_ns < 10_000_000 else (1e6, "ms")


def _three(value: float) -> str:
    """Return the value with three significant digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _ratio(ratio: Interval | None) -> str:
    return "-" if ratio is None else f"{ratio.median:.2f} ({ratio.low:.2f}-{ratio.high:.2f})"


def _best(results: Results, row: str) -> str:
    best = results.best(row)
    return "-" if best is None else f"{_ratio(results.ratio(row, best))} {best}"


def _goals(results: Results, row: str) -> str:
    speeds = (one for one in results.judged(row) if one.goal.metric == "speedup")
    return "; ".join(f"{bound(one.goal, row)} vs {one.goal.against}: {_outcome(one)}" for one in speeds)


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


def piped(table: Table) -> str:
    """Return a table as Markdown."""
    rule = ["---", *["---:"] * (len(table[0]) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [table[0], rule, *table[1:]])
