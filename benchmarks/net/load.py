"""Runs the C client against a fresh server and reads the client's measurements."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from benchmarks.machine import PATIENCE_S, Placement, read_line, spawn, stop
from benchmarks.method.trial import Effort, Sample
from benchmarks.net.build import build

__all__ = ["drive", "read_port"]


def drive(
    server_command: Sequence[str],
    connections: int,
    size_bytes: int,
    effort: Effort,
    placement: Placement,
    http: bool = False,
) -> dict[str, Sample]:
    """Return the "fresh" and the "warm" sample; `size_bytes` counts for echo only."""
    server = spawn(server_command, placement.server)
    try:
        port = read_port(server)
        windows_ms = [str(round(window_s * 1000)) for window_s in (effort.fresh_s, effort.warmup_s, effort.warm_s)]
        command = [build("client"), str(port), str(server.pid), str(connections), str(size_bytes), *windows_ms]
        client = spawn([*command, "http"] if http else command, placement.client)
        output, _ = client.communicate(timeout=PATIENCE_S)
    finally:
        stop(server)
    if client.returncode:
        raise RuntimeError(f"the client gave up on {' '.join(server_command[1:])}: see its message on stderr")
    return dict(_parse(line) for line in output.splitlines())


def read_port(server: subprocess.Popen[str]) -> int:
    """Return the port that a server prints as its first line."""
    return int(read_line(server))


def _parse(line: str) -> tuple[str, Sample]:
    name, *numbers = line.split()
    requests, wall_ns, cpu_ns, p50_ns, p99_ns = map(int, numbers)
    count = max(1, requests)
    return name, Sample(cpu_ns / count, requests * 1e9 / wall_ns, p50_ns / 1e3, p99_ns / 1e3)
