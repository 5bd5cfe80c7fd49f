"""The trials of servers with workers: a fresh server for each arm, count of workers and round."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from benchmarks.machine import PATIENCE_S, ROOT, Placement
from benchmarks.method.trial import Effort, Sample, Trial
from benchmarks.net.load import Load, drive
from benchmarks.workers.arms import command

__all__ = ["trials"]

WORKERS = (1, 2, 4)
IDLE_WORKERS = 4
CONNECTIONS = 50
# the server has started once all of its processes have used no CPU for so long
QUIET_S = 0.5
MOST_QUIET_CPU_S = 0.03
NOT_PINNED = Placement()


def trials(effort: Effort) -> list[Trial]:
    return [Trial(_rows(workers), partial(_run, workers, effort)) for workers in WORKERS]


def _rows(workers: int) -> tuple[str, ...]:
    plural = "" if workers == 1 else "s"
    rate = f"plaintext, {workers} worker{plural}, {CONNECTIONS} connections"
    if workers != IDLE_WORKERS:
        return (rate,)
    return rate, f"{workers} idle workers, PSS, bytes", f"{workers} idle workers, RSS, bytes"


def _run(workers: int, effort: Effort, arm: str) -> dict[str, Sample]:
    """Measure the memory before the first load, and the load's wall-clock time per request."""
    with _serving(arm, workers) as (pid, port):
        _wait_until_started(pid, port, workers)
        sizes = [_memory_bytes(pid, name) for name in ("Pss", "Rss")]
        sample = drive((pid, port), Load("http", CONNECTIONS), effort, NOT_PINNED)
    assert sample.rate_per_s
    served = Sample(1e9 / sample.rate_per_s, sample.rate_per_s, sample.p50_us, sample.p99_us)
    return dict(zip(_rows(workers), [served, *map(Sample, sizes)], strict=False))


@contextmanager
def _serving(arm: str, workers: int) -> Iterator[tuple[int, int]]:
    """Yield the pid of the server's parent and its port; a session of its own ends with it."""
    with tempfile.TemporaryFile("w+") as log, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        line = command(arm, port, workers)
        process = subprocess.Popen(
            line, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        try:
            yield process.pid, port
        except Exception as error:
            log.seek(0)
            raise RuntimeError(f"{error}: {log.read()[-300:].strip()}") from error
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE_S / 6)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait_until_started(pid: int, port: int, workers: int) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not (_answers(port) and len(_tree(pid)) > workers * (workers > 1) and _is_quiet(pid)):
        if time.monotonic() > end_s:
            raise RuntimeError(f"not started within {PATIENCE_S:.0f} s")
        time.sleep(0.05)


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), PATIENCE_S) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        return sock.recv(9) == b"HTTP/1.1 "
    return False


def _is_quiet(pid: int) -> bool:
    before_s = _cpu_s(pid)
    time.sleep(QUIET_S)
    return _cpu_s(pid) - before_s < MOST_QUIET_CPU_S


def _cpu_s(pid: int) -> float:
    total_ticks = 0
    for each in _tree(pid):
        with suppress(OSError):
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            total_ticks += int(fields[11]) + int(fields[12])
    return total_ticks / os.sysconf("SC_CLK_TCK")


def _memory_bytes(pid: int, name: str) -> int:
    """Return the sum over all processes of the server, helpers of multiprocessing included."""
    total_kib = 0
    for each in _tree(pid):
        lines = dict(line.split(":", 1) for line in Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()[1:])
        total_kib += int(lines[name].split()[0])
    return total_kib * 1024


def _tree(pid: int) -> list[int]:
    """Return the numbers of a process and of all that descend from it."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(found for child in children for found in _tree(int(child)))]
