"""The comparison: every arm on every row, interleaved round by round, as a table, Markdown, JSON and a PNG.

In each round every row is measured on every arm before the next row begins, in an order that moves on by one each
round. Servers are fresh processes each time; micro rows share a worker per arm within a round.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

# Run as a file, the folder of this script would be on the path, and its `http` would hide the standard library's.
sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import report
from benchmarks.arms import LIMIT
from benchmarks.machine import facts
from benchmarks.parts import PARTS, Part, Plan
from benchmarks.results import Results
from benchmarks.trial import Trial, select

__all__ = ["main"]


def main() -> None:
    options = _options()
    part = PARTS[options.part]
    arms, missing = part.available(options.arms.split(",") if options.arms else list(part.arms))
    if not arms:
        raise SystemExit("\n".join([*missing, "no arm is left to measure"]))
    plan = part.plan(options.quick)
    chosen = select(plan.trials, options.only, options.quick)
    if not chosen:
        rows = "; ".join(row for trial in plan.trials for row in trial.rows)
        raise SystemExit(f"no row matches {options.only!r}; there are: {rows}")
    known = facts(plan.placement) | {arm: part.describe(arm) for arm in arms}
    rounds = options.rounds or part.rounds[options.quick]
    results = Results(arms, part.goals)
    run(chosen, plan, rounds, results)
    notes = [f"{key}: {value}" for key, value in known.items()]
    notes += [f"rounds: {rounds}", *missing, *plan.notes(results.rows)]
    notes += [f"{arm} failed on {row!r}: {error}" for (arm, row), error in results.failures.items()]
    publish(results, known, notes, part, options)


def run(trials: list[Trial], plan: Plan, rounds: int, results: Results) -> None:
    """Measure; what fails on one arm is noted and left out of that row and round."""
    start_s = time.monotonic()
    for number in range(rounds):
        for index, trial in enumerate(trials):
            _progress(number, rounds, index, len(trials), start_s, trial.rows[0])
            for again in range(number * trial.times, (number + 1) * trial.times):
                _measure(trial, again, _turned(results.arms, again + index), results)
        plan.end_round()
    _progress(rounds - 1, rounds, len(trials), len(trials), start_s, "done\n")


def publish(results: Results, known: dict[str, str], notes: list[str], part: Part, options: argparse.Namespace) -> None:
    for file in filter(None, (options.png, options.md, options.json)):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
    if options.png and (complaint := part.draw(results, options.png, known, part.words.axis)):
        notes.append(complaint)
    print(report.to_terminal(results, notes, part.words))
    if options.md:
        Path(options.md).write_text(report.to_markdown(results, notes, part.words))
    if options.json:
        Path(options.json).write_text(report.to_json(results, known))


def _measure(trial: Trial, number: int, arms: list[str], results: Results) -> None:
    for arm in [*arms, LIMIT] if trial.limit else arms:
        try:
            samples = trial.run(arm)
        except Exception as error:  # one arm that cannot do one row must not cost the others their run
            results.failures[arm, trial.rows[0]] = str(error)
            continue
        for row, sample in samples.items():
            results.add(row, number, arm, sample)


def _turned(arms: list[str], by: int) -> list[str]:
    by %= len(arms)
    return arms[by:] + arms[:by]


def _progress(number: int, rounds: int, index: int, count: int, start_s: float, what: str) -> None:
    done = (number * count + index) / (rounds * count)
    line = f"round {number + 1}/{rounds}, {done:4.0%}, {time.monotonic() - start_s:.0f} s: {what}"
    print(f"\r{line:<76}", end="", file=sys.stderr, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare what a part is about, interleaved in one run.")
    parser.add_argument("--part", choices=PARTS, default="loops", help="what is compared; default %(default)s")
    parser.add_argument("--only", default="", metavar="PATTERN", help="rows whose name has this regular expression")
    parser.add_argument("--rounds", type=int, metavar="N", help="default: what the part needs")
    parser.add_argument("--quick", action="store_true", help="fewer rows and rounds: a minute or two")
    parser.add_argument("--arms", metavar="A,B", help="default: all of the part; of loops, x:again is a second x")
    parser.add_argument("--json", metavar="FILE", help="every sample, the medians and the ratios")
    parser.add_argument("--png", metavar="FILE", help="a chart (needs matplotlib)")
    parser.add_argument("--md", metavar="FILE", help="the tables as Markdown")
    return parser.parse_args()


if __name__ == "__main__":
    main()
