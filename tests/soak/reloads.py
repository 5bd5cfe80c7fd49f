"""A service at twice its capacity that is reloaded and recycles again and again: each accepted request is answered.

`python -m tests.soak.reloads --events 1000 --workers 4` prints what became of the requests, and ends with code 1 if one
was lost. `soak()` is the same for tests. Requests are counted by their clients and, apart from them, the application.
"""

import argparse
import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.soak.service import PATIENCE_S, ROOT, Ended, Service, Work, Worker, serving_workers, wait_for

__all__ = ["Load", "Outcome", "asking", "reload", "soak"]

OVERLOAD = 2.0
CLIENTS = 64


@dataclass
class Load:
    """The requests of the clients by their outcome, once they have ended."""

    counts: dict[str, int] = field(default_factory=dict)
    took_s: float = 0.0
    longest_s: float = 0.0

    @property
    def accepted(self) -> int:
        return self.counts.get("accepted", 0)

    def answered(self, status: int | None = None) -> int:
        prefix = "answered " + ("" if status is None else str(status))
        return sum(count for name, count in self.counts.items() if name.startswith(prefix))

    def losses(self) -> dict[str, int]:
        return {name: count for name, count in self.counts.items() if name.startswith(("lost", "not connected"))}


@dataclass
class Outcome:
    """The result of a soak: reloads, recycles, and the requests as each end counts them."""

    reloads: int
    recycles: int
    took_s: float
    load: Load
    served: Ended
    output: str

    def problems(self) -> list[str]:
        """Say what was lost; nothing if nothing was."""
        found = [f"{count} {name}" for name, count in self.load.losses().items()]
        if self.load.accepted != self.load.answered():
            found.append(f"{self.load.accepted} accepted, {self.load.answered()} answered")
        if not self.served.begun == self.served.ended == self.load.answered(200):
            done = self.load.answered(200)
            found.append(f"{self.served.begun} begun, {self.served.ended} ended, {done} answered 200")
        if not 0 < self.load.answered(200) < self.load.answered():
            found.append(f"no overload: {self.load.counts}")
        return found

    def __str__(self) -> str:
        asked_per_s, done_per_s = (count / self.load.took_s for count in (self.load.accepted, self.load.answered(200)))
        return (
            f"{self.reloads} reloads and {self.recycles} recycles in {self.took_s:.1f} s; "
            f"{asked_per_s:.0f}/s asked, {done_per_s:.0f}/s done, longest answer {self.load.longest_s:.2f} s; "
            f"{json.dumps(self.load.counts, sort_keys=True)}; {self.served}"
        )


@contextlib.contextmanager
def asking(service: Service, overload: float = OVERLOAD) -> Iterator[Load]:
    """Clients in a process of their own while the context is open; afterwards the load says what became of it."""
    line = [sys.executable, "-m", "tests.soak.askers", service.address, str(CLIENTS)]
    line.append(str(overload * service.work.capacity_per_s))
    load = Load()
    process = subprocess.Popen(line, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield load
        told, _ = process.communicate(timeout=PATIENCE_S * 2)
        for name, value in json.loads(told).items():
            setattr(load, name, value)
    finally:
        process.kill()
        process.communicate()


def reload(service: Service) -> None:
    """Reload by SIGHUP, and wait until no worker of before is left and as many new ones have started."""
    before = service.workers()
    service.process.send_signal(signal.SIGHUP)
    patience_s = PATIENCE_S + service.work.workers * service.work.start_s
    wait_for(lambda: is_renewed(service, before), "the workers are replaced", patience_s)


def is_renewed(service: Service, before: set[Worker]) -> bool:
    assert service.process.poll() is None, f"the server has ended\n{service.output()}"
    now = service.workers()
    return not before & now and len(now) >= service.work.workers


def soak(folder: Path, work: Work, *, events: int = 0, seconds: float = 0.0) -> Outcome:
    """Reload again and again until so many reloads and recycles, and so many seconds, have passed."""
    with serving_workers(folder, work) as service:
        began_s, reloads = time.monotonic(), 0
        with asking(service) as load:
            while reloads + recycles(service, reloads) < events or time.monotonic() - began_s < seconds:
                reload(service)
                reloads += 1
                if work.max_requests:
                    recycle(service, reloads)
        took_s, recycled = time.monotonic() - began_s, recycles(service, reloads)
        code = service.end()
        assert code in (0, 143), f"the server ended with {code}\n{service.output()}"
        return Outcome(reloads, recycled, took_s, load, service.requests(), service.output())


def recycle(service: Service, reloads: int) -> None:
    """Wait until the load has made one more worker recycle."""
    before = recycles(service, reloads)
    wait_for(lambda: recycles(service, reloads) > before, "a worker recycles", PATIENCE_S + service.work.start_s)


def recycles(service: Service, reloads: int) -> int:
    """Return how many workers have started that neither the start nor a reload has brought."""
    return max(0, len(service.started()) - service.work.workers * (1 + reloads))


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="tests.soak.reloads", description=__doc__)
    parser.add_argument("--events", type=int, default=1000, help="reloads and recycles together")
    parser.add_argument("--seconds", type=float, default=0.0, help="at least so long")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--unix", action="store_true", help="over a Unix socket")
    parser.add_argument("--start-s", type=float, default=0.0, help="what the lifespan's startup takes")
    parser.add_argument("--max-requests", type=int, default=0, help="of one worker, which then recycles")
    parser.add_argument("options", nargs="*", help="more options of `penstock serve`, after --")
    given: Any = parser.parse_args(arguments)
    work = Work(given.workers, given.unix, given.start_s, given.max_requests, options=tuple(given.options))
    with tempfile.TemporaryDirectory() as folder:
        outcome = soak(Path(folder), work, events=given.events, seconds=given.seconds)
    print(outcome)
    for problem in outcome.problems():
        print("LOST:", problem)
    return 1 if outcome.problems() else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
