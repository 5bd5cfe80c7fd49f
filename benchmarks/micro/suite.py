"""The micro trials and their workers: one process per arm, CPU and round, which is idle between requests."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Iterable
from functools import partial

from benchmarks.machine import Placement, Process, module_command, read_line, spawn, stop
from benchmarks.method.trial import Effort, Pair, Sample, Trial
from benchmarks.micro.cases import CASES

__all__ = ["Workers", "trials"]

Key = tuple[str, int | None]


class Workers:
    """The live workers by arm and CPU. Owns the processes until `retire`."""

    def __init__(self, placement: Placement, effort: Effort, module: str = "benchmarks.micro.worker") -> None:
        self._module = module
        self._placement = placement
        self._effort = effort
        self._workers: dict[Key, Process] = {}

    def measure(self, arm: str, case: str) -> Sample:
        """Measure a case on the CPU of the servers, with the other CPU idle."""
        return Sample(self._costs_ns(case, [(arm, self._placement.server)])[0])

    def duet(self, subject: str, other: str, case: str) -> Pair:
        """Measure two arms at the same time, one on each CPU, and once more with the CPUs exchanged.

        A cost is the geometric mean of both, so that a CPU that is slower moves both arms alike.
        """
        cpus = (self._placement.server, self._placement.client)
        runs = [self._costs_ns(case, list(zip((subject, other), order, strict=True))) for order in (cpus, cpus[::-1])]
        ours, theirs = (math.sqrt(first * second) for first, second in zip(*runs, strict=True))
        return Pair(Sample(ours), Sample(theirs))

    def retire(self) -> None:
        """End every worker; the next measurement starts a fresh one."""
        for worker in self._workers.values():
            worker.communicate()
        self._workers.clear()

    def _costs_ns(self, case: str, keys: list[Key]) -> list[float]:
        request = {"case": case, "seconds": self._effort.micro_s, "repeats": self._effort.micro_repeats}
        try:
            workers = [self._prepared(key, request) for key in keys]
            for worker in workers:
                _ask(worker, request)
            answers = [json.loads(read_line(worker)) for worker in workers]
        except (OSError, RuntimeError):
            self._drop(keys)
            raise
        if answers[0]["ends"]:
            self._drop(keys)
        return [float(answer["cost_ns"]) for answer in answers]

    def _drop(self, keys: list[Key]) -> None:
        """Stop the workers of these arms: their next row gets fresh ones."""
        for key in keys:
            if worker := self._workers.pop(key, None):
                stop(worker)

    def _prepared(self, key: Key, request: dict[str, object]) -> Process:
        """Return the worker of an arm on a CPU, warmed up for a case: a duet needs both at the same time."""
        arm, cpu = key
        if key not in self._workers:
            self._workers[key] = spawn(module_command(self._module, arm), cpu, stdin=subprocess.PIPE)
        worker = self._workers[key]
        _ask(worker, request | {"repeats": 0})
        read_line(worker)
        return worker


def trials(workers: Workers, names: Iterable[str] = CASES, duet: bool = False) -> list[Trial]:
    """Return the trials of the cases, as duets of the judged arm with each other one or an arm at a time."""
    if duet:
        return [Trial((name,), partial(_run, workers, name), duet=partial(_duet, workers, name)) for name in names]
    return [Trial((name,), partial(_run, workers, name)) for name in names]


def _run(workers: Workers, name: str, arm: str) -> dict[str, Sample]:
    return {name: workers.measure(arm, name)}


def _duet(workers: Workers, name: str, subject: str, other: str) -> Pair:
    return workers.duet(subject, other, name)


def _ask(worker: Process, request: dict[str, object]) -> None:
    assert worker.stdin
    print(json.dumps(request), file=worker.stdin, flush=True)
