"""The machine: which CPU runs the server and which the client, how processes are started on them, and what it is."""

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

__all__ = [
    "PATIENCE_S",
    "ROOT",
    "Placement",
    "cpu_time_ns",
    "facts",
    "module_command",
    "place",
    "read_line",
    "spawn",
    "stop",
]

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 60.0  # a server, client or worker that is silent for longer hangs
Process = subprocess.Popen[str]


@dataclass(frozen=True, slots=True)
class Placement:
    """CPU numbers, or None where there is only one CPU or no way to choose."""

    server: int | None = None
    client: int | None = None

    def __str__(self) -> str:
        if self.server is None:
            return "not pinned (fewer than two CPUs, or no affinity calls here)"
        return f"servers and micro rows on CPU {self.server}, clients on CPU {self.client}"


def place() -> Placement:
    """Choose the CPUs."""
    if not hasattr(os, "sched_getaffinity"):
        return Placement()
    cpus = sorted(os.sched_getaffinity(0))
    return Placement(cpus[0], cpus[1]) if len(cpus) > 1 else Placement()


def module_command(module: str, *args: str) -> list[str]:
    """Run one of our modules by this interpreter; `spawn` starts it in the repository, so that it is found."""
    return [sys.executable, "-m", module, *args]


def spawn(command: Sequence[str], cpu: int | None, stdin: int = subprocess.DEVNULL) -> Process:
    """Start a process with its stdout on a pipe, pinned before it has read its first line of work."""
    process = subprocess.Popen(command, cwd=ROOT, stdin=stdin, stdout=subprocess.PIPE, text=True)
    if cpu is not None:
        os.sched_setaffinity(process.pid, {cpu})
    return process


def read_line(process: Process) -> str:
    """The next line a process prints; RuntimeError when it ends or hangs instead."""
    assert process.stdout
    if not select.select([process.stdout], [], [], PATIENCE_S)[0]:
        raise RuntimeError(f"no answer for {PATIENCE_S:.0f} s from {_what(process)}")
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"status {process.wait()} and no answer from {_what(process)}")
    return line


def _what(process: Process) -> str:
    # what goes into reports: without the paths of this machine
    arguments = process.args if isinstance(process.args, list) else [process.args]
    return " ".join(os.path.basename(str(argument)) for argument in arguments)


def stop(process: Process) -> None:
    """End a process we started, and collect it."""
    process.kill()
    process.communicate()


def cpu_time_ns(pid: int) -> int:
    """User and system time of another process: its CPU clock, as clock_getcpuclockid() names it on Linux."""
    return time.clock_gettime_ns((~pid << 3) | 2)


def facts(placement: Placement | str) -> dict[str, str]:
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
