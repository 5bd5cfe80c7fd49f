"""The raw file of a run, as JSON: facts, notes and every sample. Reports are made from it, again if need be."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.counts.table import Counts
from benchmarks.method.goals import Goals
from benchmarks.method.results import Results
from benchmarks.method.trial import Sample

__all__ = ["FOLDER", "Run", "load", "save"]

FOLDER = Path(__file__).resolve().parent.parent / "raw"  # ignored by git


@dataclass(frozen=True, slots=True)
class Run:
    """The results of a run with the facts of the machine and the notes of the measurement."""

    part: str
    results: Results
    facts: dict[str, str]
    notes: list[str]
    counts: Counts | None = None  # of instructions and system calls, from a run of their own

    def with_counts(self, counts: Counts) -> Run:
        """Return the run with these counts, by which goals of system calls are judged."""
        self.results.calls.update(counts.calls())
        return replace(self, counts=counts)


def save(run: Run, path: Path) -> None:
    """Write the raw file; its folder is made."""
    rounds = {
        row: {str(number): {arm: asdict(sample) for arm, sample in arms.items()} for number, arms in numbers.items()}
        for row, numbers in run.results.rounds.items()
    }
    failures = [[arm, row, error] for (arm, row), error in run.results.failures.items()]
    known: dict[str, Any] = {"part": run.part, "facts": run.facts, "notes": run.notes, "arms": run.results.arms}
    known["counts"] = None if run.counts is None else asdict(run.counts)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**known, "failures": failures, "rounds": rounds}, indent=1) + "\n")


def load(path: Path) -> Run:
    """Read a raw file. SystemExit with what to run where it is not there."""
    try:
        known = json.loads(path.read_text())
    except FileNotFoundError:
        raise SystemExit(f"{path} is not there (raw files are not kept in git): run `make bench`") from None
    results = Results(known["arms"], Goals.load(known["part"]))
    for row, numbers in known["rounds"].items():
        for number, arms in numbers.items():
            for arm, sample in arms.items():
                results.add(row, int(number), arm, Sample(**sample))
    results.failures.update({(arm, row): error for arm, row, error in known["failures"]})
    run = Run(known["part"], results, known["facts"], known["notes"])
    return run.with_counts(Counts.from_json(known["counts"])) if known.get("counts") else run
