"""The micro trials and their workers: one process per arm and round, which is idle between requests."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from functools import partial

from benchmarks.machine import Placement, module_command, read_line, spawn, stop
from benchmarks.method.trial import Effort, Sample, Trial
from benchmarks.micro.cases import CASES

__all__ = ["Workers", "trials"]

Worker = subprocess.Popen[str]


class Workers:
    """The live workers by arm. Owns the processes until `retire`."""

    def __init__(self, placement: Placement, effort: Effort, module: str = "benchmarks.micro.worker") -> None:
        self._module = module
        self._placement = placement
        self._effort = effort
        self._workers: dict[str, Worker] = {}

    def measure(self, arm: str, case: str) -> Sample:
        worker = self._worker(arm)
        assert worker.stdin
        request = {"case": case, "seconds": self._effort.micro_s, "repeats": self._effort.micro_repeats}
        try:
            print(json.dumps(request), file=worker.stdin, flush=True)
            return Sample(cost_ns=json.loads(read_line(worker))["cost_ns"])
        except (OSError, RuntimeError):
            stop(self._workers.pop(arm))  # the arm's next row gets a fresh worker
            raise

    def retire(self) -> None:
        """End every worker; the next measurement starts a fresh one."""
        for worker in self._workers.values():
            worker.communicate()
        self._workers.clear()

    def _worker(self, arm: str) -> Worker:
        if arm not in self._workers:
            command = module_command(self._module, arm)
            self._workers[arm] = spawn(command, self._placement.server, stdin=subprocess.PIPE)
        return self._workers[arm]


def trials(workers: Workers, names: Iterable[str] = CASES) -> list[Trial]:
    return [Trial((name,), partial(_run, workers, name)) for name in names]


def _run(workers: Workers, name: str, arm: str) -> dict[str, Sample]:
    return {name: workers.measure(arm, name)}
