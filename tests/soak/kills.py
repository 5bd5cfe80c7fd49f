"""Workers and the parent of a service under load are killed by SIGKILL: what may be lost, and what may be left.

`python -m tests.soak.kills --kills 100 --workers 4` kills so many workers and then the parent, and prints what became
of the requests.
"""

import argparse
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from os import kill
from pathlib import Path

from tests.soak.reloads import CLIENTS, Load, asking
from tests.soak.service import Ended, Service, Work, has_started, serving_workers, start, state, wait_for

__all__ = ["Killed", "kill_parent", "kill_workers"]

# what the requests in a killed worker are at most: those of all clients, were they all its own
LOST_BY_A_KILL = CLIENTS
LEFT_S = 2.0


@dataclass
class Killed:
    """The result of a run: workers killed, the longest time until one was replaced, and the requests."""

    kills: int
    longest_s: float
    load: Load
    served: Ended

    def problems(self) -> list[str]:
        """Say what was lost beyond the requests within killed workers."""
        lost = self.load.losses()
        found = [f"{count} {name}" for name, count in lost.items() if name.startswith("not connected")]
        if sum(lost.values()) > self.kills * LOST_BY_A_KILL:
            found.append(f"{lost} by {self.kills} kills")
        if self.load.accepted != self.load.answered() + sum(lost.values()):
            found.append(f"not all are accounted for: {self.load.counts}")
        # a worker may be killed after it has sent an answer and before it has counted that
        if not self.served.begun >= self.load.answered(200) <= self.served.ended + self.kills:
            found.append(f"{self.served}, {self.load.answered(200)} answered 200")
        return found


def kill_workers(folder: Path, work: Work, kills: int) -> Killed:
    """Kill workers at random, each time once as many as before serve again; then stop the service."""
    longest_s = 0.0
    # the kills are more than the restarts that a service has by default
    with serving_workers(folder, replace(work, options=(*work.options, "--max-restarts", "none"))) as service:
        with asking(service) as load:
            for _ in range(kills):
                time.sleep(random.uniform(0.0, 0.2))
                longest_s = max(longest_s, _kill_one(service))
        code = service.end()
        assert code in (0, 143), f"the server ended with {code}\n{service.output()}"
        wait_for(lambda: not service.processes(), f"no process is left: {service.processes()}", LEFT_S)
        assert not service.files(), service.files()
        return Killed(kills, longest_s, load, service.requests())


def _kill_one(service: Service) -> float:
    """Kill a worker, and return how long it took until another one served in its place, in seconds."""
    began_s = time.monotonic()
    victim = random.choice(sorted(service.workers()))
    kill(victim.pid, signal.SIGKILL)
    wait_for(lambda: state(victim.pid) == "X", f"the parent reaps worker {victim.pid}")
    wait_for(lambda: has_started(service), "the worker is replaced")
    return time.monotonic() - began_s


def kill_parent(folder: Path, work: Work) -> Load:
    """Kill the parent under load. Neither process nor file is left, and the address is free for another service."""
    with serving_workers(folder, work) as service:
        with asking(service) as load:
            wait_for(lambda: service.requests().ended >= 20, "the service works")
            service.process.kill()
            service.process.wait()
            wait_for(lambda: not alive(service), f"no orphan: {alive(service)}\n{service.output()}", LEFT_S)
        left = service.files()
        # the count of started workers begins anew
        for file in service.counts.iterdir():
            file.unlink()
        service.process = start(folder, service.address, work)
        wait_for(lambda: has_started(service), f"the address can be bound\n{service.output()}")
        assert service.end() in (0, 143), service.output()
        wait_for(lambda: not service.processes(), f"no process is left: {service.processes()}", LEFT_S)
        assert not left, f"left by the kill: {left}"
        assert not service.files(), f"left by the stop: {service.files()}"
        return load


def alive(service: Service) -> dict[int, str]:
    """Return its processes that are no zombies: a zombie without a parent is its new parent's."""
    return {pid: found for pid, found in service.processes().items() if found != "Z"}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="tests.soak.kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--unix", action="store_true")
    parser.add_argument("options", nargs="*", help="more options of `penstock serve`, after --")
    given = parser.parse_args(arguments)
    work = Work(given.workers, given.unix, options=tuple(given.options))
    with tempfile.TemporaryDirectory() as folder:
        killed = kill_workers(Path(folder) / "workers", work, given.kills)
        print(killed)
        for problem in killed.problems():
            print("LOST:", problem)
        print(kill_parent(Path(folder) / "parent", work))
    return 1 if killed.problems() else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
