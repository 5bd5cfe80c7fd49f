"""Runs a guarded service under a sequence of loads: finds its capacity, applies the load, reads the client's counts.

Loads are multiples of the capacity, which is measured moments before on the same process, past its guard. Goodput is in
percent of the average of that and of the capacity afterwards, because a shared machine is not steady.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from benchmarks.machine import PATIENCE_S, Placement, Process, module_command, spawn, stop
from benchmarks.net.build import build
from benchmarks.net.servers import read_port
from benchmarks.pressure.arms import DEADLINE_S
from benchmarks.pressure.checks import Checked, Checks
from benchmarks.pressure.services import PORT_PATH

__all__ = ["BUCKET_S", "Course", "Phase", "Window", "drive"]

SOURCES = Path(__file__).resolve().parent
CONNECTIONS_MOST = 4096
BUCKET_S = 0.25
SETTLE_S = 0.25
# Requests that keep each busy: twice the backend's slots; one computing, one ready and one in transit.
IN_FLIGHT = {"io": 8, "cpu": 3}


@dataclass(frozen=True, slots=True)
class Phase:
    """A load, in multiples of the capacity, for some seconds; with `turns` the service becomes slower at its start."""

    name: str
    load: float
    seconds: float
    turns: bool = False


@dataclass(frozen=True, slots=True)
class Window:
    """The outcomes of the requests due in a stretch of time. Latencies are None without requests of their kind."""

    seconds: float
    due: int
    good: int
    refused: int
    late: int
    failed: int
    good_p50_us: float | None
    good_p99_us: float | None
    refused_p50_us: float | None
    refused_p99_us: float | None
    behind_p99_us: float | None  # the client's own lateness

    @classmethod
    def of(cls, found: dict[str, Any], seconds: float) -> Window:
        counts = (found[name] for name in ("due", "good", "refused", "late", "failed"))
        times = (
            found.get(name, {}).get(quantile)
            for name, quantile in (
                ("good_us", "p50"),
                ("good_us", "p99"),
                ("refused_us", "p50"),
                ("refused_us", "p99"),
                ("behind_us", "p99"),
            )
        )
        return cls(seconds, *counts, *times)

    def goodput(self, capacity_per_s: float) -> float:
        """Return good answers in percent of the due requests, or of the capacity where that is less."""
        return 100 * self.good / max(1.0, min(self.due, capacity_per_s * self.seconds))


@dataclass(frozen=True, slots=True)
class Course:
    """A run: its capacity, its phases by name, and its buckets of a quarter second in order of time."""

    capacity_per_s: float
    phases: dict[str, Window]
    buckets: list[Window]
    checked: Checked | None = None

    def goodput(self, phase: str, slower: float = 1.0) -> float:
        """Return the goodput of a phase, in percent of the capacity divided by `slower`."""
        return self.phases[phase].goodput(self.capacity_per_s / slower)


def drive(
    arm: str,
    service: str,
    phases: Sequence[Phase],
    capacity_s: float,
    seed: int,
    placement: Placement,
    *,
    checked: str | None = None,
) -> Course:
    """Run the phases in order on a fresh process, with health checks of the path `checked` during the last.

    `/livez` is checked on the health port.
    """
    server = spawn(module_command("benchmarks.pressure.serve", arm, service), placement.server)
    try:
        load = Load(read_port(server), seed, placement)
        load.first()
        capacity_per_s = _capacity_per_s(load, IN_FLIGHT[service], capacity_s)
        *before, last = (phase.seconds for phase in phases)
        port = read_port(server) if checked == PORT_PATH else load.port
        with nullcontext() if checked is None else Checks(port, checked, sum(before), last) as checks:
            run = load([_written(phase, capacity_per_s, server) for phase in phases])
        if not any(phase.turns for phase in phases):
            capacity_per_s = _average(capacity_per_s, _found_per_s(load, IN_FLIGHT[service], capacity_s))
    finally:
        stop(server)
    windows = {found["name"]: Window.of(found, found["seconds"]) for found in run["phases"]}
    return Course(
        capacity_per_s, windows, [Window.of(found, BUCKET_S) for found in run["buckets"]], checks and checks.found
    )


def _capacity_per_s(load: Load, in_flight: int, seconds: float) -> float:
    found_per_s = _found_per_s(load, in_flight, seconds)
    if not found_per_s:
        raise RuntimeError(f"nothing was answered within {seconds} s, with {in_flight} requests at a time")
    return found_per_s


def _found_per_s(load: Load, in_flight: int, seconds: float) -> float:
    found = load([f"settle,@{in_flight},{SETTLE_S},/bare", f"capacity,@{in_flight},{seconds},/bare"])["phases"][-1]
    return float(found["good"]) / seconds


def _average(before_per_s: float, after_per_s: float) -> float:
    """Return the average, or the first alone where the second is low because of a leftover queue."""
    return (before_per_s + after_per_s) / 2 if after_per_s > before_per_s / 2 else before_per_s


def _written(phase: Phase, capacity_per_s: float, server: Process) -> str:
    rate = f"{phase.name},{phase.load * capacity_per_s:.3f},{phase.seconds}"
    return f"{rate},/,{server.pid}" if phase.turns else rate


@dataclass(frozen=True, slots=True)
class Load:
    """The load generator against one port; a call runs phases, given in its own notation."""

    port: int
    seed: int
    placement: Placement

    def first(self) -> None:
        """Wait for the server's first answer: it listens before it has started."""
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)) as connection:
            connection.request("GET", "/bare")
            connection.getresponse().read()

    def __call__(self, phases: Sequence[str]) -> dict[str, Any]:
        options = (self.port, self.seed, round(DEADLINE_S * 1000), CONNECTIONS_MOST)
        client = spawn([build("load", SOURCES), *map(str, options), *phases], self.placement.client)
        output, _ = client.communicate(timeout=PATIENCE_S)
        if client.returncode:
            raise RuntimeError(f"the client gave up on {phases}: see its message on stderr")
        found: dict[str, Any] = json.loads(output)
        return found
