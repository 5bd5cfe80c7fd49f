"""The comparison: measures every arm on every row, interleaved round by round, and writes the report.

In each round every row is measured on every arm before the next row begins, in an order that moves on by one each
round. Servers and workers are fresh processes in each round. In a duet the judged arm and another one are measured at
the same time, a CPU each. The judged arm runs twice, as the A/A arm: how far its two copies differ is the noise that a
verdict has to clear.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

# Run as a file, the folder of this script would be on the path, and its `http` would hide the standard library's.
sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.counts.table import Counts
from benchmarks.machine import facts
from benchmarks.method.goals import Goals
from benchmarks.method.interval import LEAST_VALUES
from benchmarks.method.results import Results
from benchmarks.method.trial import LIMIT, Sample, Trial, select, with_twin
from benchmarks.parts import PARTS, Plan
from benchmarks.report import chart, raw, short, text

__all__ = ["main"]


def main() -> None:
    options = _options()
    run = raw.load(options.again_from) if options.again_from else measure(options.part, options)
    if options.counts:
        run = _with_counts(run, options.counts)
    publish(run, options)


def measure(name: str, options: argparse.Namespace) -> raw.Run:
    """Measure the chosen rows of a part on every arm that is available."""
    part, goals = PARTS[name], Goals.load(name)
    arms, missing = part.available(options.arms.split(",") if options.arms else list(part.arms))
    if not arms:
        raise SystemExit("\n".join([*missing, "no arm is left to measure"]))
    results = Results(with_twin(arms, Results(arms, goals).subject), goals)
    plan = part.plan(options.quick)
    chosen = select(plan.trials, options.only, options.quick)
    if not chosen:
        rows = "; ".join(row for trial in plan.trials for row in trial.rows)
        raise SystemExit(f"no row matches {options.only!r}; there are: {rows}")
    known = facts(plan.placement) | {arm: part.describe(arm) for arm in arms}
    wanted = options.rounds or part.rounds[options.quick]
    rounds = interleave(chosen, plan, wanted, results, options.minutes)
    notes = [f"{key}: {value}" for key, value in known.items()]
    notes += [f"rounds: {rounds}", f"A/A arm: {results.twin}", *missing, *plan.notes(results.rows)]
    notes += [f"{arm} failed on {row!r}: {error}" for (arm, row), error in results.failures.items()]
    return raw.Run(name, results, known, notes)


def _with_counts(run: raw.Run, path: Path) -> raw.Run:
    if not path.exists():
        return replace(run, notes=[*run.notes, f"no counts of instructions and system calls: {path.name} is not there"])
    return run.with_counts(Counts.load(path))


def interleave(trials: list[Trial], plan: Plan, rounds: int, results: Results, minutes: float | None = None) -> int:
    """Run the trials round by round, and return the number of rounds: with `minutes`, as many as fit, at least five.

    A failure is noted, and left out of its row and round.
    """
    start_s, number = time.monotonic(), 0
    while number < rounds if minutes is None else _fits(number, time.monotonic() - start_s, minutes):
        for index, trial in enumerate(trials):
            _progress(number, index, len(trials), start_s, trial.rows[0])
            for again in range(number * trial.times, (number + 1) * trial.times):
                _measure(trial, again, _rotated(results.arms, again + index), results)
        plan.end_round()
        number += 1
    _progress(number - 1, len(trials), len(trials), start_s, "done\n")
    return number


def _fits(rounds: int, taken_s: float, minutes: float) -> bool:
    """Return whether one more round, as long as the others, ends within the budget."""
    return rounds < LEAST_VALUES or taken_s / rounds * (rounds + 1) <= minutes * 60


def publish(run: raw.Run, options: argparse.Namespace) -> None:
    """Print the report, and write the files that the options name."""
    part, results, notes = PARTS[run.part], run.results, list(run.notes)
    for file in filter(None, (options.chart, options.md)):
        file.parent.mkdir(parents=True, exist_ok=True)
    if options.json:
        raw.save(run, options.json)
    if options.chart:
        notes += filter(None, [chart.draw(part.paint, results, options.chart, run.facts, part.words.axis)])
    print(text.to_terminal(results, notes, part.words, run.counts))
    if options.md:
        table = short.block(run.part, results, run.facts, part.words)
        options.md.write_text(text.to_markdown(results, notes, part.words, table, run.counts))


def _measure(trial: Trial, number: int, arms: list[str], results: Results) -> None:
    if trial.duet is not None and results.has_rival:
        _measure_duets(trial, number, [arm for arm in arms if arm != results.subject], results)
        return
    for arm in [*arms, LIMIT] if trial.limit else arms:
        if results.is_given_up(arm, trial.rows[0]):
            continue
        try:
            samples = trial.run(arm)
        except Exception as error:  # the failure of one arm on one row must not end the run of the others
            results.fail(arm, trial.rows[0], str(error))
            continue
        for row, sample in samples.items():
            results.add(row, number, arm, sample)


def _measure_duets(trial: Trial, number: int, others: list[str], results: Results) -> None:
    """Measure the judged arm with each other one; its own cost is the median over these duets."""
    assert trial.duet is not None
    (row,), costs_ns = trial.rows, []
    for arm in others:
        if results.is_given_up(arm, row):
            continue
        try:
            pair = trial.duet(results.subject, arm)
        except Exception as error:
            results.fail(arm, row, str(error))
            continue
        costs_ns.append(pair.subject.cost_ns)
        results.add(row, number, arm, replace(pair.other, beside_ns=pair.subject.cost_ns))
    if costs_ns:
        results.add(row, number, results.subject, Sample(statistics.median(costs_ns)))


def _rotated(arms: list[str], by: int) -> list[str]:
    by %= len(arms)
    return arms[by:] + arms[:by]


def _progress(number: int, index: int, count: int, start_s: float, what: str) -> None:
    line = f"round {number + 1}, {index / count:4.0%}, {time.monotonic() - start_s:.0f} s: {what}"
    print(f"\r{line:<76}", end="", file=sys.stderr, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare the arms of a part, interleaved in one run.")
    parser.add_argument("--part", choices=PARTS, default="loops", help="the part to measure; default %(default)s")
    parser.add_argument("--only", default="", metavar="PATTERN", help="rows whose name has this regular expression")
    parser.add_argument("--rounds", type=int, metavar="N", help="default: 5, of the loops 9; nothing is judged below 5")
    parser.add_argument("--minutes", type=float, metavar="M", help="as many rounds as fit, at least 5")
    parser.add_argument("--quick", action="store_true", help="fewer rows and rounds: a minute or two")
    parser.add_argument("--arms", metavar="A,B", help="default: all of the part; the A/A arm is added")
    parser.add_argument("--counts", type=Path, metavar="FILE", help="of benchmarks/instructions.py --json, for a table")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every sample, for --from")
    parser.add_argument("--chart", type=Path, metavar="STEM", help="STEM-light.svg and STEM-dark.svg (matplotlib)")
    parser.add_argument("--md", type=Path, metavar="FILE", help="the tables as Markdown")
    parser.add_argument("--from", dest="again_from", type=Path, metavar="FILE", help="report an earlier run's --json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
