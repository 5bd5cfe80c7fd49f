"""The executor trials: a fresh process for each arm and trial, with its executor's workers."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
from functools import partial

from benchmarks.executors.cases import CASES, NUMPY_MISSING
from benchmarks.machine import PATIENCE_S, ROOT, module_command
from benchmarks.method.trial import Sample, Trial

__all__ = ["notes", "trials"]


def trials(seconds: float) -> list[Trial]:
    """Return every case that can run here, each measured for `seconds` on each arm."""
    possible = {name: case for name, case in CASES.items() if _has_numpy() or not case.numpy}
    return [Trial(case.rows, partial(_run, name, seconds), quick=case.quick) for name, case in possible.items()]


def notes() -> list[str]:
    """Return a line for each case that is left out here."""
    return [] if _has_numpy() else [NUMPY_MISSING]


def _run(name: str, seconds: float, arm: str) -> dict[str, Sample]:
    command = module_command("benchmarks.executors.worker", arm, name, str(seconds), str(_core_count()))
    # a new session: killing its group ends a trial that hangs, workers included
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        output, _ = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise RuntimeError(f"no answer for {PATIENCE_S:.0f} s") from None
    if process.returncode:
        raise RuntimeError(f"exit status {process.returncode}: see its message on stderr")
    return {row: Sample(**found) for row, found in json.loads(output.splitlines()[-1]).items()}


def _core_count() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _has_numpy() -> bool:
    return importlib.util.find_spec("numpy") is not None
