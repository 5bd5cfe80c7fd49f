"""Runs the C client against a server and reads the client's measurement."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.machine import PATIENCE_S, Placement, Process, read_line, spawn, stop
from benchmarks.method.trial import Effort, Sample
from benchmarks.net.build import build, tls_client

__all__ = ["Load", "drive"]


@dataclass(frozen=True, slots=True)
class Load:
    """The load of a row: the client's options, whose meaning stands in `client.c`, and whether it speaks TLS."""

    mode: str = "echo"
    connections: int = 1
    size_bytes: int = 1024
    burst: int = 1
    path: str = "/"
    idle: int = 0
    idle_first: int = 0
    tls: bool = False

    @property
    def program(self) -> str:
        """The path of the client, built if need be. SystemExit: it cannot be built."""
        return (tls_client() if self.tls else None) or build("client")

    @property
    def options(self) -> list[str]:
        """The options of the client's command line."""
        known = {"mode": self.mode, "connections": self.connections, "bytes": self.size_bytes, "burst": self.burst}
        known |= {"path": self.path, "idle": self.idle, "idle_first": self.idle_first}
        return [f"{key}={value}" for key, value in known.items()]


def drive(
    server: tuple[int, int], load: Load, effort: Effort, placement: Placement, idle: Callable[[], None] | None = None
) -> Sample:
    """Load the server with this pid and port for a window; call `idle` at each of the client's idle lines."""
    pid, port = server
    windows_ms = [str(round(window_s * 1000)) for window_s in (effort.warmup_s, effort.warm_s)]
    command = [load.program, str(port), str(pid), *windows_ms, *load.options]
    client = spawn(command, placement.client, stdin=subprocess.PIPE)
    try:
        if load.idle and idle:
            _watch_idle(client, idle)
        output, _ = client.communicate(timeout=PATIENCE_S)
    finally:
        stop(client)
    if client.returncode:
        raise RuntimeError(f"the client gave up ({' '.join(load.options)}): see its message on stderr")
    return _parse(output)


def _watch_idle(client: Process, idle: Callable[[], None]) -> None:
    assert client.stdin
    for _ in range(2):
        line = read_line(client)
        if line != "idle\n":
            raise RuntimeError(f"the client said {line!r}")
        idle()
        print(file=client.stdin, flush=True)


def _parse(output: str) -> Sample:
    requests, wall_ns, cpu_ns, p50_ns, p99_ns = map(int, output.splitlines()[-1].split())
    return Sample(cpu_ns / max(1, requests), requests * 1e9 / wall_ns, p50_ns / 1e3, p99_ns / 1e3)
