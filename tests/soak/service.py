"""`penstock serve` with workers in a session of its own, and what can be seen of it from outside: processes and files.

Everything it may write goes below one folder, and every process of it has that folder's name in its environment.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tests.soak.reloaded import LAYOUT, PROBE, STARTED, stat_fields
from tests.support.ports import free_port

__all__ = ["PATIENCE_S", "Service", "Work", "serving_workers", "wait_for"]

ROOT = Path(__file__).parents[2]
PATIENCE_S = 120.0
SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Work:
    """The service to start, and its load.

    Attributes:
        workers: worker processes
        unix: whether it listens on a Unix socket
        start_s: what the lifespan's startup takes, in seconds
        max_requests: of one worker, which then recycles; 0 for no recycling
        capacity_per_s: requests a second that all workers together can do
        options: more options of `penstock serve`
    """

    workers: int = 1
    unix: bool = False
    start_s: float = 0.0
    max_requests: int = 0
    capacity_per_s: float = 200.0
    options: tuple[str, ...] = ()


class Worker(NamedTuple):
    """A worker process: its number, and its start in ticks, for the kernel uses numbers again."""

    pid: int
    started: str

    @property
    def lives(self) -> bool:
        try:
            fields = stat_fields(self.pid)
        except (FileNotFoundError, ProcessLookupError):
            return False
        return fields[STARTED] == self.started and fields[0] not in "ZX"


class Ended(NamedTuple):
    """The requests that applications have begun and ended, summed over all workers that ever were."""

    begun: int
    ended: int


@dataclass
class Service:
    """A running `penstock serve`; `process` is the parent."""

    folder: Path
    address: str
    process: subprocess.Popen[bytes]
    work: Work
    shared_before: frozenset[str] = field(default_factory=lambda: frozenset(os.listdir(SHARED_MEMORY)))

    def workers(self) -> set[Worker]:
        """Return the workers that have started and live."""
        return {worker for worker in self.started() if worker.lives}

    def started(self) -> set[Worker]:
        """Return all workers that have ever started."""
        names = [name.partition("-") for name in os.listdir(self.counts) if not name.endswith(".new")]
        return {Worker(int(pid), started) for pid, _, started in names}

    @property
    def counts(self) -> Path:
        return self.folder / "counts"

    def requests(self) -> Ended:
        found = [LAYOUT.unpack((self.counts / f"{pid}-{start}").read_bytes()) for pid, start in self.started()]
        return Ended(sum(begun for begun, _ in found), sum(ended for _, ended in found))

    def output(self) -> str:
        return (self.folder / "output").read_text(errors="replace")

    def processes(self) -> dict[int, str]:
        """Return the states of all of its processes that are there, zombies too, by their number."""
        own = {int(name) for name in os.listdir("/proc") if name.isdigit() and self._is_own(int(name))}
        return {pid: found for pid in own if (found := state(pid)) != "X"}

    def _is_own(self, pid: int) -> bool:
        # a zombie has lost its environment, and has its session
        return session(pid) == self.process.pid or str(self.folder).encode() in environment_of(pid)

    def files(self) -> set[str]:
        """Return the files it has made and not removed: sockets, shared memory, temporary files."""
        made = {str(path.relative_to(self.folder)) for path in (self.folder / "made").rglob("*") if not path.is_dir()}
        return made | {f"/dev/shm/{name}" for name in frozenset(os.listdir(SHARED_MEMORY)) - self.shared_before}

    def answers(self) -> bool:
        """Return whether a new connection gets an answer, be it a refusal by the gate."""
        with contextlib.suppress(OSError), self._connected() as sock:
            sock.sendall(f"GET {PROBE} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
            return sock.recv(9) == b"HTTP/1.1 "
        return False

    def _connected(self) -> socket.socket:
        if self.work.unix:
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(PATIENCE_S)
            sock.connect(self.address)
            return sock
        host, _, port = self.address.rpartition(":")
        return socket.create_connection((host, int(port)), PATIENCE_S)

    def end(self) -> int:
        """Stop it by SIGTERM, and return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)


def state(pid: int) -> str:
    """Return the letter of the process's state, X if there is none."""
    try:
        return stat_fields(pid)[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def session(pid: int) -> int:
    try:
        return int(stat_fields(pid)[3])
    except (FileNotFoundError, ProcessLookupError):
        return -1


def environment_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def wait_for(condition: Callable[[], object], what: str, patience_s: float = PATIENCE_S, every_s: float = 0.02) -> None:
    """Wait until other processes have brought the condition about."""
    end_s = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end_s, f"not within {patience_s:g} s: {what}"
        time.sleep(every_s)


@contextlib.contextmanager
def serving_workers(folder: Path, work: Work) -> Iterator[Service]:
    """Start the service, wait until all workers have started, and leave no process of it."""
    for name in ("counts", "made"):
        (folder / name).mkdir(parents=True)
    address = str(folder / "made" / "socket") if work.unix else f"127.0.0.1:{free_port()}"
    service = Service(folder, address, start(folder, address, work), work)
    try:
        wait_for(
            lambda: has_started(service), f"{work.workers} workers started\n{service.output()}", 120 + work.start_s
        )
        yield service
    finally:
        for pid in service.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        service.process.wait()


def has_started(service: Service) -> bool:
    assert service.process.poll() is None, f"the server has ended: {service.process.poll()}\n{service.output()}"
    return len(service.workers()) >= service.work.workers and service.answers()


def start(folder: Path, address: str, work: Work) -> "subprocess.Popen[bytes]":
    """Start `penstock serve` at the address, which may have been another one's before."""
    made = {name: str(folder / "made") for name in ("TMPDIR", "XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_CACHE_HOME")}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
    environment |= made | {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH")])),
        "RELOADED_COUNTS": str(folder / "counts"),
        "RELOADED_START_S": str(work.start_s),
        "RELOADED_WORK_S": str(work.workers / work.capacity_per_s),
    }
    with (folder / "output").open("ab") as output:
        return subprocess.Popen(
            command(address, work),
            cwd=folder / "made",
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def command(address: str, work: Work) -> list[str]:
    words = [sys.executable, "-m", "penstock", "serve", "tests.soak.reloaded:app", "--no-access-log"]
    words += ["--workers", str(work.workers), "--limit", "4", "--max-wait", "0.1"]
    words += ["--uds", address] if work.unix else ["--port", address.rpartition(":")[2]]
    if work.max_requests:
        # the count includes requests that the gate has shed
        words += [recycling(), str(work.max_requests), f"{recycling()}-jitter", str(max(1, work.max_requests // 4))]
    return [*words, *work.options]


@cache
def recycling() -> str:
    """Return the name of the option: penstock's own if it has one, or uvicorn's."""
    told = subprocess.run([sys.executable, "-m", "penstock", "serve", "--help"], capture_output=True, text=True)
    return "--max-requests" if "--max-requests" in told.stdout else "--limit-max-requests"
