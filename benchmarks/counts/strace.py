"""Counts system calls per operation by strace, of all threads of a process."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.counts.callgrind import environment
from benchmarks.counts.loads import SERVED, exchange
from benchmarks.counts.marked import FOLDER, LIBRARY, by_row
from benchmarks.machine import PATIENCE_S, ROOT, module_command

__all__ = ["calls", "missing", "per_operation", "per_request"]

CALL = re.compile(r"^\d+\s+\w+\(")
MARK = re.compile(rf'"{FOLDER}/(\w+) (\d+)"')
ROUNDS = (20, 120)


def missing() -> str:
    """Return the reason for which nothing can be counted here, empty if it can."""
    return "" if shutil.which("strace") else "strace is not installed (apt-get install strace)"


def per_operation(arm: str, rows: Sequence[str]) -> dict[str, float]:
    """Return system calls per operation of the micro rows that the arm can run."""
    return by_row(calls(_trace(module_command("benchmarks.counts.marked", arm, *rows)).splitlines()), rows)


def calls(trace: Iterable[str]) -> dict[tuple[str, int], int]:
    """Return the number of system calls before each mark, since the one before it."""
    found, count = {}, 0
    for line in trace:
        if mark := MARK.search(line):
            found[mark[1], int(mark[2])] = count
            count = 0
        elif CALL.match(line):
            count += 1
    return found


def per_request(arm: str, row: str) -> float | None:
    """Return system calls per request of a server, None where the arm has no such server."""
    few, many = (_served(arm, row, rounds) for rounds in ROUNDS)
    requests = (ROUNDS[1] - ROUNDS[0]) * SERVED[row].requests
    return None if few is None or many is None else (many - few) / requests


def _trace(command: list[str]) -> str:
    with tempfile.NamedTemporaryFile() as file:
        traced = ["strace", "-f", "-o", file.name, *command]
        subprocess.run(traced, cwd=ROOT, env=environment() | {LIBRARY: ""}, capture_output=True, check=False)
        return Path(file.name).read_text(errors="replace")


def _end(server: subprocess.Popen[str]) -> None:
    """End strace by a signal on which it ends its process too, and writes what it has seen."""
    server.terminate()
    try:
        server.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.communicate()


def _served(arm: str, row: str, rounds: int) -> int | None:
    served = SERVED[row]
    with tempfile.NamedTemporaryFile() as file:
        command = ["strace", "-f", "-I", "waiting", "-o", file.name, *module_command(served.module, arm, served.kind)]
        pipe, quiet = subprocess.PIPE, subprocess.DEVNULL
        server = subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=pipe, stderr=quiet, text=True)
        assert server.stdout
        try:
            with exchange(int(server.stdout.readline()), served) as send:
                send(rounds)
        except (OSError, ValueError):
            return None
        finally:
            _end(server)
        return sum(1 for line in Path(file.name).read_text(errors="replace").splitlines() if CALL.match(line))
