"""Counts instructions per operation by callgrind. The kernel's work is not counted."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

from benchmarks.counts.loads import SERVED, Served, exchange
from benchmarks.counts.marked import LIBRARY, by_row
from benchmarks.machine import ROOT, module_command
from benchmarks.net.build import shared

__all__ = ["environment", "missing", "per_operation", "per_request", "totals"]

SOURCES = Path(__file__).resolve().parent
# for penstock to make its attach socket under valgrind; a version without one is waited for as long
ATTACH_S = 20.0
TRIGGER = re.compile(r"^desc: Trigger: Client Request: (\w+) (\d+)$", re.MULTILINE)
TOTALS = re.compile(r"^totals: (\d+)", re.MULTILINE)


@cache
def missing() -> str:
    """Return the reason for which nothing can be counted here, empty if it can."""
    if shutil.which("valgrind") is None or shutil.which("callgrind_control") is None:
        return "valgrind is not installed (apt-get install valgrind)"
    return "" if shared("marks", SOURCES) else "valgrind's headers are missing"


def per_operation(arm: str, rows: Sequence[str]) -> dict[str, float]:
    """Return instructions per operation of the micro rows that the arm can run under valgrind."""
    with tempfile.TemporaryDirectory() as folder:
        command = [*_tool(folder), *module_command("benchmarks.counts.marked", arm, *rows)]
        subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, check=False)
        return by_row(dict(totals(path.read_text() for path in Path(folder).iterdir())), rows)


def totals(dumps: Iterable[str]) -> Iterator[tuple[tuple[str, int], int]]:
    """Yield the kind and the row's number of each mark, with the instructions before it."""
    for text in dumps:
        mark, total = TRIGGER.search(text), TOTALS.search(text)
        if mark and total:
            yield (mark[1], int(mark[2])), int(total[1])


def per_request(arm: str, row: str) -> float | None:
    """Return instructions per request of a server, None where the arm does not run under valgrind."""
    served = SERVED[row]
    with tempfile.TemporaryDirectory() as folder:
        command = [*_tool(folder), *module_command(served.module, arm, served.kind)]
        server = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment() | {"PENSTOCK_RUNTIME_DIR": folder},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            counted = _counted(server, served, Path(folder), waits=arm.startswith("penstock"))
        except (OSError, ValueError):
            return None
        finally:
            server.kill()
            server.communicate()
    return counted


def _counted(server: subprocess.Popen[str], served: Served, folder: Path, *, waits: bool) -> float:
    assert server.stdout
    with exchange(int(server.stdout.readline()), served) as rounds:
        rounds(20)
        # what a process does once, in a thread, is no part of a request
        until_s = time.monotonic() + ATTACH_S
        while waits and time.monotonic() < until_s and not (folder / f"{server.pid}-attach.sock").exists():
            time.sleep(0.05)
        rounds(50)
        _control("--zero", server.pid)
        rounds(100)
        _control("--dump", server.pid)
    total = sum(
        int(found[1])
        for path in folder.iterdir()
        if path.name.startswith("out") and (found := TOTALS.search(path.read_text()))
    )
    return total / (100 * served.requests)


def _control(what: str, pid: int) -> None:
    subprocess.run(["callgrind_control", what, str(pid)], capture_output=True, check=True, timeout=60)


def _tool(folder: str) -> list[str]:
    return ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out"]


def environment() -> dict[str, str]:
    """Return the environment of a process that is counted: a fixed hash seed, and no checks by the clock."""
    off = {"PENSTOCK_TASKS_CHECK_S": "none", "PENSTOCK_TASKS_STALL_S": "none"}
    return os.environ | {"PYTHONHASHSEED": "0", LIBRARY: shared("marks", SOURCES) or ""} | off
