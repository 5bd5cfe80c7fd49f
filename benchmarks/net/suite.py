"""The trials of sockets: echo in four ways, TLS, datagrams, new and idle connections, a busy thread beside.

A server is a fresh process in each round, and serves all rows of its kind. Idle connections have servers of their own.
"""

from __future__ import annotations

import resource
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

from benchmarks.machine import Placement, module_command
from benchmarks.method.trial import LIMIT, Effort, Sample, Trial
from benchmarks.net.build import build, tls_client
from benchmarks.net.certificate import make_certificate
from benchmarks.net.echo import BUSY
from benchmarks.net.load import Load, drive
from benchmarks.net.servers import Servers, resident_bytes

__all__ = ["Bench", "has_tls", "notes", "trials"]

CONNECTIONS = (1, 10, 100)
SIZES_KIB = (1, 16, 128)
WAYS = {"protocol": "protocol", "buffered": "BufferedProtocol", "streams": "streams", "sock": "sock_*"}
QUICK = (
    "echo protocol 10 x 1 KiB",
    "echo protocol 100 x 1 KiB",
    "echo protocol 10 x 128 KiB",
    "echo streams 10 x 1 KiB",
)
TLS_SIZES_KIB = (1, 16, 64)
TLS_CONNECTIONS = (10, 100)
HANDSHAKES = 10  # at a time
PEERS = (1, 10)
BURST = 64
IDLE, IDLE_FIRST = 10_000, 2000
TLS_IDLE, TLS_IDLE_FIRST = 400, 100
AMONG_IDLE = "echo protocol 100 x 1 KiB among 10,000 idle"
IDLE_BYTES, TLS_IDLE_BYTES = "an idle connection, bytes", "TLS: an idle connection, bytes"
BESIDE_BUSY = "echo 10 x 1 KiB beside a busy thread, p99"
SPARE_DESCRIPTORS = 300


@dataclass(frozen=True, slots=True)
class Bench:
    """The means of a served row: the live servers, the CPUs, and the measuring times."""

    servers: Servers
    placement: Placement
    effort: Effort

    def measure(self, kind: str, command: list[str], load: Load) -> Sample:
        """Load the arm's server of a kind; a server that fails is stopped."""
        with self.servers.address(kind, command) as address:
            return drive(address, load, self.effort, self.placement)


def trials(bench: Bench) -> list[Trial]:
    """Return the trials that this machine can run; `notes` has the reasons for the others."""
    shapes = [(kind, n, kib) for kind in WAYS for n in CONNECTIONS for kib in SIZES_KIB]
    found = [_echo(bench, *shape) for shape in shapes]
    found.append(_row(bench, "accept + echo + close", "protocol", Load("connect", 10, 64)))
    if has_descriptors():
        load = Load(connections=100, idle=IDLE, idle_first=IDLE_FIRST)
        idle = partial(_idle, bench, "protocol", load, AMONG_IDLE, IDLE_BYTES)
        found.append(Trial((AMONG_IDLE, IDLE_BYTES), idle, quick=False))
    return [*found, *_tls(bench), _beside_busy(bench, BESIDE_BUSY, "protocol"), *_datagrams(bench)]


def has_tls() -> bool:
    """Return whether rows with TLS can be measured: they need the openssl command and OpenSSL's headers."""
    return make_certificate() and tls_client() is not None


def has_descriptors() -> bool:
    """Raise the limit of open files of this process and its children if need be; return whether that suffices."""
    wanted = IDLE + SPARE_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        return False
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return True


def notes(rows: Iterable[str]) -> list[str]:
    """Return a line for each group of rows that is missing here."""
    if not any(row.startswith(("echo", "accept", "UDP")) for row in rows):
        return []
    found = [] if has_tls() else ["no rows of TLS: they need the openssl command and OpenSSL's headers (libssl-dev)"]
    return found if has_descriptors() else [*found, f"no row {AMONG_IDLE!r}: the hard limit of open files is too low"]


def _echo(bench: Bench, kind: str, connections: int, size_kib: int) -> Trial:
    name = f"echo {WAYS[kind]} {connections} x {size_kib} KiB"
    load = Load(connections=connections, size_bytes=size_kib * 1024)
    return replace(_row(bench, name, kind, load, name.removeprefix("echo ") in QUICK), limit=kind == "protocol")


def _row(bench: Bench, name: str, kind: str, load: Load, quick: bool = False) -> Trial:
    def run(arm: str) -> dict[str, Sample]:
        command = [build("server")] if arm == LIMIT else _command(arm, kind)
        return {name: bench.measure(kind, command, load)}

    return Trial((name,), run, quick=quick)


def _command(arm: str, kind: str) -> list[str]:
    return module_command("benchmarks.net.echo", arm, kind)


def _tls(bench: Bench) -> list[Trial]:
    if not has_tls():
        return []
    shapes = [(n, kib) for n in TLS_CONNECTIONS for kib in TLS_SIZES_KIB]
    found = [_tls_echo(bench, "TLS: echo", "tls", *shape) for shape in shapes]
    for mode, name in (("connect", "full"), ("resume", "resumed")):
        found.append(_row(bench, f"TLS: handshake, {name}", "tls", Load(mode, HANDSHAKES, 1, tls=True)))
    found += [_tls_echo(bench, "TLS: echo streams", "tls-streams", 10, kib) for kib in TLS_SIZES_KIB]
    found.append(_beside_busy(bench, f"TLS: {BESIDE_BUSY}", "tls"))
    load = Load(idle=TLS_IDLE, idle_first=TLS_IDLE_FIRST, tls=True)
    return [*found, Trial((TLS_IDLE_BYTES,), partial(_idle, bench, "tls", load, "", TLS_IDLE_BYTES), quick=False)]


def _tls_echo(bench: Bench, what: str, kind: str, connections: int, kib: int) -> Trial:
    return _row(bench, f"{what} {connections} x {kib} KiB", kind, Load("echo", connections, kib * 1024, tls=True))


def _beside_busy(bench: Bench, name: str, kind: str) -> Trial:
    """Measure the p99 latency of an echo while another thread of the server runs Python code.

    The server ends with its measurement: its thread would take the CPU from the next one.
    """
    effort, load = replace(bench.effort, warm_s=bench.effort.http_s), Load("echo", 10, tls=kind == "tls")

    def run(arm: str) -> dict[str, Sample]:
        with _alone(bench, kind + BUSY, arm) as address:
            sample = drive(address, load, effort, bench.placement)
        return {name: replace(sample, cost_ns=(sample.p99_us or 0.0) * 1e3)}

    return Trial((name,), run, quick=False)


def _datagrams(bench: Bench) -> list[Trial]:
    found = [_row(bench, f"UDP: echo {peers} x 1 KiB", "udp", Load("udp", peers)) for peers in PEERS]
    return [*found, _row(bench, f"UDP: echo in bursts of {BURST} x 1 KiB", "udp", Load("udp", 1, burst=BURST))]


@contextmanager
def _alone(bench: Bench, kind: str, arm: str) -> Iterator[tuple[int, int]]:
    """Yield the pid and the port of a server of its own, which ends afterwards; no other one is alive then."""
    bench.servers.retire()
    servers = Servers(bench.placement)
    try:
        with servers.address(kind, _command(arm, kind)) as address:
            yield address
    finally:
        servers.retire()


def _idle(bench: Bench, kind: str, load: Load, active_row: str, bytes_row: str, arm: str) -> Mapping[str, Sample]:
    """Measure the memory of idle connections, and the active ones among them where that is a row.

    The first idle connections pay for code, caches and arenas; the memory of the others counts.
    """
    sizes: list[int] = []
    with _alone(bench, kind, arm) as (pid, port):
        sample = drive((pid, port), load, bench.effort, bench.placement, lambda: sizes.append(resident_bytes(pid)))
    held = {bytes_row: Sample((sizes[1] - sizes[0]) / (load.idle - load.idle_first))}
    return held | ({active_row: sample} if active_row else {})
