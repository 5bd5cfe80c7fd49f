"""One health port for several worker processes: real processes, one of which is blocked, stopped or killed."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from penstock.integrations.health.liveness import HealthState
from penstock.integrations.health.port import listen
from penstock.integrations.health.server import HealthEndpoints
from penstock.integrations.health.workers import HealthReporter, WorkersHealth
from tests.support.clients import ask_http
from tests.support.waiting import wait_until

PATIENCE_S = 30.0
# a worker that does what it reads
WORKER = """
import asyncio, os, socket, sys, time
from penstock import new_event_loop
from penstock.integrations.health.port import listen
from penstock.integrations.health.server import LoopHealth
from penstock.integrations.health.workers import HealthReporter

async def main():
    loop, said = asyncio.get_running_loop(), set()
    health = LoopHealth(loop, lambda: "start" in said, lambda: "end" in said)
    HealthReporter(socket.socket(fileno=int(sys.argv[1])), health).start()
    while word := await loop.run_in_executor(None, sys.stdin.readline):
        said.add(word.strip())
        if "fork" in said and os.fork() == 0:
            # what the application makes may live on after the worker: it lives as long as this test's parent
            os.read(int(sys.argv[2]), 1)
            os._exit(0)
        if "block" in said:
            time.sleep(3600)

with asyncio.Runner(loop_factory=new_event_loop) as runner:
    runner.run(main())
"""


class Worker:
    """A worker process."""

    def __init__(self, health: WorkersHealth) -> None:
        number = health.handover.fileno()
        waits, self.lifeline = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", WORKER, str(number), str(waits)],
            stdin=subprocess.PIPE,
            text=True,
            pass_fds=[number, waits],
        )
        os.close(waits)

    def say(self, word: str) -> None:
        assert self.process.stdin is not None
        print(word, file=self.process.stdin, flush=True)

    def send(self, signum: int) -> None:
        os.kill(self.process.pid, signum)

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()

    def end_family(self) -> None:
        self.end()
        os.close(self.lifeline)


class Service:
    """The parent and its workers."""

    def __init__(self, health: WorkersHealth) -> None:
        self.health = health
        self.workers: list[Worker] = []

    def start(self) -> Worker:
        """Start a worker that has begun to serve."""
        known = self.health.workers
        worker = Worker(self.health)
        self.workers.append(worker)
        self.until(lambda: self.ask("/livez")[0] == 200 and self.health.workers > known)
        return worker

    def ask(self, path: str) -> tuple[int, str]:
        return ask_http(self.health.port, path)

    def until(self, predicate: Callable[[], bool]) -> None:
        wait_until(predicate, every_s=0.02, told=lambda: f"{self.ask('/livez')} {self.ask('/readyz')}")


@pytest.fixture
def service() -> Iterator[Service]:
    health = WorkersHealth(listen("127.0.0.1", 0), HealthEndpoints(stuck_s=1.0))
    health.start()
    made = Service(health)
    try:
        yield made
    finally:
        for worker in made.workers:
            worker.end_family()
        health.close()


def test_ready_if_any_worker_is_and_live_if_each_is(service: Service) -> None:
    assert (service.ask("/livez"), service.ask("/readyz")) == ((200, "starting"), (503, "starting"))
    one, other = service.start(), service.start()
    assert (service.ask("/livez"), service.ask("/readyz")) == ((200, "starting"), (503, "starting"))
    one.say("start")
    service.until(lambda: service.ask("/readyz") == (200, "ok"))
    other.say("start")
    other.say("block")
    service.until(lambda: service.ask("/livez")[0] == 503)
    assert service.ask("/livez")[1].startswith("stuck for ")
    assert service.ask("/readyz") == (200, "ok")


def test_a_worker_that_is_stopped_whole_is_stuck(service: Service) -> None:
    worker = service.start()
    worker.say("start")
    service.until(lambda: service.ask("/readyz") == (200, "ok"))
    worker.send(signal.SIGSTOP)
    service.until(lambda: service.ask("/livez")[0] == 503)
    assert service.ask("/readyz")[0] == 503
    worker.send(signal.SIGCONT)
    service.until(lambda: service.ask("/livez") == (200, "ok"))


def test_a_worker_that_is_killed_is_forgotten_also_if_it_was_stuck(service: Service) -> None:
    one, other = service.start(), service.start()
    for worker in (one, other):
        worker.say("start")
    service.until(lambda: service.ask("/livez") == (200, "ok"))
    one.send(signal.SIGSTOP)
    service.until(lambda: service.ask("/livez")[0] == 503)
    one.end()
    service.until(lambda: service.ask("/livez") == (200, "ok"))
    other.end()
    service.until(lambda: service.ask("/readyz") == (503, "starting"))


def test_a_worker_that_is_killed_is_forgotten_though_a_process_that_it_forked_lives_on(service: Service) -> None:
    worker = service.start()
    worker.say("fork")
    worker.say("start")
    service.until(lambda: service.ask("/readyz") == (200, "ok"))
    worker.end()
    service.until(lambda: service.ask("/readyz") == (503, "starting"))
    assert service.health.workers == 0


def test_a_worker_that_ends_is_not_ready(service: Service) -> None:
    worker = service.start()
    worker.say("start")
    service.until(lambda: service.ask("/readyz") == (200, "ok"))
    worker.say("end")
    service.until(lambda: service.ask("/readyz") == (503, "draining"))
    assert service.ask("/livez") == (200, "draining")


class Fine:
    """A health that needs no loop."""

    def state(self) -> HealthState:
        return HealthState(is_started=True)

    def send_ping(self) -> None:
        """Wait for questions alone."""


def test_more_workers_than_a_socket_queues_are_all_heard(service: Service) -> None:
    """No reader exists while the workers start: their messages fill the queue, and no loop waits for it."""
    for _ in range(30):
        HealthReporter(service.health.handover, Fine()).start()  # type: ignore[arg-type]
    service.until(lambda: service.ask("/readyz") == (200, "ok") and service.health.workers == 30)
