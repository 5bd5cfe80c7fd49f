"""Runs wrk against a fresh server; wrk reports requests per second, the server's CPU clock is read around it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence

from benchmarks.machine import Placement, cpu_time_ns, spawn, stop
from benchmarks.method.trial import Effort, Sample
from benchmarks.net.load import read_port

__all__ = ["drive_wrk", "wrk_installed"]

UNITS_US = {"us": 1.0, "ms": 1e3, "s": 1e6}


def wrk_installed() -> bool:
    return shutil.which("wrk") is not None


def drive_wrk(server_command: Sequence[str], connections: int, effort: Effort, placement: Placement) -> Sample:
    server = spawn(server_command, placement.server)
    try:
        url = f"http://127.0.0.1:{read_port(server)}/"
        _wrk(url, connections, 1, placement)  # wrk counts whole seconds: this is its shortest warm-up
        cpu_ns = cpu_time_ns(server.pid)
        output = _wrk(url, connections, max(1, round(effort.http_s)), placement)
        cpu_ns = cpu_time_ns(server.pid) - cpu_ns
    finally:
        stop(server)
    return _parse(output, cpu_ns)


def _wrk(url: str, connections: int, seconds: int, placement: Placement) -> str:
    command = ["wrk", "--latency", "-t1", f"-c{connections}", f"-d{seconds}s", url]
    client = spawn(command, placement.client)
    output, _ = client.communicate(timeout=seconds + 30)
    if client.returncode:
        raise subprocess.CalledProcessError(client.returncode, command, output)
    return output


def _parse(output: str, cpu_ns: int) -> Sample:
    requests = int(_find(r"(\d+) requests in", output)[0])
    rate_per_s = float(_find(r"Requests/sec:\s+([\d.]+)", output)[0])
    p50_us, p99_us = (_microseconds(_find(rf"{percent}%\s+([\d.]+)(us|ms|s)", output)) for percent in (50, 99))
    return Sample(cpu_ns / max(1, requests), rate_per_s, p50_us, p99_us)


def _find(pattern: str, output: str) -> tuple[str, ...]:
    found = re.search(pattern, output)
    if found is None:
        raise RuntimeError(f"wrk's report has no {pattern!r}:\n{output}")
    return found.groups()


def _microseconds(found: tuple[str, ...]) -> float:
    return float(found[0]) * UNITS_US[found[1]]
