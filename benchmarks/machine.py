"""The machine: the CPUs of server and client, the start of processes on them, and the facts of a report."""

from __future__ import annotations

import os
import platform
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

__all__ = [
    "PATIENCE_S",
    "ROOT",
    "Placement",
    "Process",
    "facts",
    "module_command",
    "place",
    "read_line",
    "spawn",
    "stop",
]

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 60.0  # a process that is silent for longer hangs
Process = subprocess.Popen[str]


@dataclass(frozen=True, slots=True)
class Placement:
    """The CPU numbers of server and client, None where there is only one CPU or no affinity call."""

    server: int | None = None
    client: int | None = None

    def __str__(self) -> str:
        if self.server is None:
            return "not pinned (fewer than two CPUs, or no affinity calls here)"
        return f"servers and micro rows on CPU {self.server}, clients on CPU {self.client}"


def place() -> Placement:
    """Return the first two CPUs of this process, if there are two."""
    if not hasattr(os, "sched_getaffinity"):
        return Placement()
    cpus = sorted(os.sched_getaffinity(0))
    return Placement(cpus[0], cpus[1]) if len(cpus) > 1 else Placement()


def module_command(module: str, *args: str) -> list[str]:
    """Return the command that runs a module of this repository; `spawn` starts it in the right folder."""
    return [sys.executable, "-m", module, *args]


def spawn(
    command: Sequence[str], cpu: int | None, stdin: int = subprocess.DEVNULL, stderr: IO[str] | None = None
) -> Process:
    """Start a process with its stdout on a pipe, pinned to the CPU before it gets its first request."""
    process = subprocess.Popen(command, cwd=ROOT, stdin=stdin, stdout=subprocess.PIPE, stderr=stderr, text=True)
    if cpu is not None:
        os.sched_setaffinity(process.pid, {cpu})
    return process


def read_line(process: Process) -> str:
    """Return the next line that a process prints. RuntimeError: it ended or hangs."""
    assert process.stdout
    if not select.select([process.stdout], [], [], PATIENCE_S)[0]:
        raise RuntimeError(f"no answer for {PATIENCE_S:.0f} s from {_shown(process)}")
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"status {process.wait()} and no answer from {_shown(process)}")
    return line


def _shown(process: Process) -> str:
    # errors go into reports: leave out the paths of this machine
    arguments = process.args if isinstance(process.args, list) else [process.args]
    return " ".join(os.path.basename(str(argument)) for argument in arguments)


def stop(process: Process) -> None:
    """Kill a process that `spawn` started, and reap it."""
    process.kill()
    process.communicate()


def facts(placement: Placement | str) -> dict[str, str]:
    """Return the facts of this machine and interpreter for a report."""
    return {
        "cpu": f"{_cpu_model()}, {os.cpu_count()} CPUs",
        "kernel": platform.release(),
        "python": f"{platform.python_implementation()} {platform.python_version()}, {platform.python_compiler()}",
        "placement": str(placement),
        "load at start": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "when": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
