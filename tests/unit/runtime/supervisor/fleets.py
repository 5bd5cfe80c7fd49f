"""A fleet without processes: workers that a test starts, ends and blocks, on a clock of its own."""

import json
import logging
import random
from dataclasses import dataclass, field

from penstock.runtime.supervisor.fleet import Fleet, FleetOptions
from penstock.runtime.supervisor.generation import Generation
from penstock.runtime.supervisor.worker.orders import Orders
from penstock.runtime.supervisor.worker_process import State, WorkerProcess

FIRST_PID = 2**30


def generation(number: int) -> Generation:
    return Generation(number, Orders("none:none", None, {}, ()))


class PretendedProcess(WorkerProcess):
    """A worker whose process is the test's."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self.signals: list[int] = []

    def signal(self, signum: int) -> None:
        self.signals.append(signum)

    def told(self) -> list[dict[str, object]]:
        """Return the messages that the worker has received."""
        self.child_channel.setblocking(False)
        found = []
        while True:
            try:
                packet = self.child_channel.recv(65536)
            except OSError:
                return found
            if not packet:
                return found
            found.append(json.loads(packet))


@dataclass
class Fleets:
    """A fleet with the means to drive it."""

    options: FleetOptions = field(default_factory=FleetOptions)
    count: int = 2

    def __post_init__(self) -> None:
        self.now_s = 1000.0
        self.launched: list[PretendedProcess] = []
        self.refuses: OSError | None = None
        self.rss = 0
        self.logger = logging.getLogger("penstock.tests.fleet")
        self.fleet = Fleet(
            self,
            self.options,
            self.logger,
            rss_bytes=lambda pid: self.rss,
            chance=random.Random(7),
            make_worker=PretendedProcess,
        )
        self.rolled: list[str] = []
        self.fleet.on_rolled = self.rolled.append
        self.fleet.begin(self.count, generation(1))

    def launch(self, worker: WorkerProcess) -> None:
        assert isinstance(worker, PretendedProcess)
        if self.refuses is not None:
            raise self.refuses
        worker.pid = FIRST_PID + len(self.launched)
        self.launched.append(worker)

    def tick(self, seconds: float = 0.0) -> None:
        self.now_s += seconds
        self.fleet.tick(self.now_s, int(self.now_s * 1e9))

    def start(self, *workers: PretendedProcess) -> None:
        for worker in workers:
            worker.page.set_state(2)
            self.fleet.on_message(worker, {"started": True}, self.now_s)

    def end(self, *workers: PretendedProcess, status: str = "ended with exit code 0") -> None:
        for worker in workers:
            self.fleet.on_end(worker, status, self.now_s)

    def fail(self, worker: PretendedProcess, reason: str = "cannot load app") -> None:
        self.fleet.on_message(worker, {"failed": reason, "code": 3, "details": "Traceback"}, self.now_s)
        self.end(worker, status="ended with exit code 3")

    def ready(self) -> "Fleets":
        """Start all workers of the first generation."""
        self.tick()
        self.start(*self.alive(State.STARTING))
        self.tick()
        return self

    def alive(self, *states: State) -> list[PretendedProcess]:
        return [
            each for each in self.launched if each.state in (states or (State.STARTING, State.SERVING, State.DRAINING))
        ]

    def settle(self) -> None:
        """Let every start succeed and every drain end, until nothing is left to do."""
        for _ in range(200):
            self.tick(0.1)
            starting, draining = self.alive(State.STARTING), self.alive(State.DRAINING)
            if not starting and not draining:
                return
            self.start(*starting)
            self.end(*draining)
        raise AssertionError("the fleet does not settle")

    def close(self) -> None:
        for worker in self.launched:
            worker.close()
