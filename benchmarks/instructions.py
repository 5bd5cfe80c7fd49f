"""Counts instructions per operation under callgrind, a figure that other load on the machine does not change.

A row is run twice with different counts; the difference leaves out start-up, imports and warm-up. Servers get one
request at a time on each of ten connections. The kernel's work is not counted, so a difference between two arms is a
larger share of this figure than of the cost of a request.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

sys.path.pop(0)  # see compare.py
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.arms import ARMS, available
from benchmarks.machine import ROOT, module_command
from benchmarks.micro.cases import CASES
from benchmarks.tasks import arms as task_arms

__all__ = ["main"]

COUNTS = (2000, 22_000)
ROUNDS = (60, 360)
CONNECTIONS = 10
TOOL = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
ECHOED = b"x" * 1023 + b"\n"
GET = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"
# row -> (module and its arguments after the arm, request, end of the answer)
SERVED = {
    "served echo protocol 10 x 1 KiB": (("benchmarks.net.echo", "protocol"), ECHOED, b"\n"),
    "served echo streams 10 x 1 KiB": (("benchmarks.net.echo", "streams"), ECHOED, b"\n"),
    "served echo sock_* 10 x 1 KiB": (("benchmarks.net.echo", "sock"), ECHOED, b"\n"),
    "served uvicorn plaintext": (("benchmarks.http.serve", "uvicorn"), GET, b"World!"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Instructions per operation of the micro rows, by valgrind.")
    parser.add_argument("--only", default="call_soon|create_task|timer set|sleep", metavar="PATTERN")
    parser.add_argument("--arms", default=",".join(ARMS))
    options = parser.parse_args()
    if shutil.which("valgrind") is None:
        raise SystemExit("valgrind is not installed (apt-get install valgrind)")
    arms, missing = _available(options.arms.split(","))
    rows = [row for row in (*CASES, *SERVED) if re.search(options.only, row)]
    print(*missing, f"{'instructions per operation':<32}{''.join(f'{arm:>15}' for arm in arms)}", sep="\n")
    for row in rows:
        measure = per_request if row in SERVED else per_operation
        print(f"{row:<32}", *(f"{_shown(measure(arm, row)):>14}" for arm in arms), flush=True)


def _available(arms: list[str]) -> tuple[list[str], list[str]]:
    """Split the arms, of loops and of tasks, into available ones and lines about missing ones."""
    loops, missing = available([arm for arm in arms if arm not in task_arms.ARMS])
    more, absent = task_arms.available([arm for arm in arms if arm in task_arms.ARMS])
    return [arm for arm in arms if arm in {*loops, *more}], [*missing, *absent]


def per_operation(arm: str, row: str) -> float | None:
    """Return instructions per operation, None where the arm does not run under valgrind."""
    few, many = (_collected(arm, row, count) for count in COUNTS)
    return None if few is None or many is None else (many - few) / (COUNTS[1] - COUNTS[0])


def _collected(arm: str, row: str, count: int) -> int | None:
    command = [*TOOL, *module_command("benchmarks.micro.worker", arm, "--once", row, str(count))]
    run = subprocess.run(command, cwd=ROOT, env=_environment(), capture_output=True, text=True, check=False)
    return _total(run.stderr) if run.returncode == 0 else None


def per_request(arm: str, row: str) -> float | None:
    """Return instructions per request of a server, None where the arm does not run under valgrind."""
    few, many = (_served(arm, row, rounds) for rounds in ROUNDS)
    return None if few is None or many is None else (many - few) / ((ROUNDS[1] - ROUNDS[0]) * CONNECTIONS)


def _served(arm: str, row: str, rounds: int) -> int | None:
    (module, *arguments), request, end = SERVED[row]
    command = [*TOOL, *module_command(module, arm, *arguments)]
    pipe = subprocess.PIPE
    server = subprocess.Popen(command, cwd=ROOT, env=_environment(), stdout=pipe, stderr=pipe, text=True)
    assert server.stdout
    port = server.stdout.readline()
    if port:
        _drive(int(port), rounds, request, end)
    server.send_signal(signal.SIGTERM)
    return _total(server.communicate()[1])


def _drive(port: int, rounds: int, request: bytes, end: bytes) -> None:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(CONNECTIONS)]
        for _ in range(rounds):
            for each in sockets:
                each.sendall(request)
            for each in sockets:
                while not each.recv(64 * 1024).endswith(end):
                    pass


def _environment() -> dict[str, str]:
    # the same hash collisions each time, and no checks by the clock, because valgrind is slow
    off = {"PENSTOCK_TASKS_CHECK_S": "none", "PENSTOCK_TASKS_STALL_S": "none"}
    return os.environ | {"PYTHONHASHSEED": "0"} | off


def _total(told: str) -> int | None:
    found = re.search(r"Collected : (\d+)", told)
    return int(found[1]) if found else None


def _shown(instructions: float | None) -> str:
    return "failed" if instructions is None else f"{instructions:,.0f}"


if __name__ == "__main__":
    main()
