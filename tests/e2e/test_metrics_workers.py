"""One scrape has the metrics of every worker of `penstock serve`: by a port, and by an endpoint of the application."""

import os
import re
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import PATIENCE_S, Command, get, wait_for
from tests.support.ports import free_port

pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")

APP = """
import os
from prometheus_client import CollectorRegistry, Counter
from penstock.integrations.metrics.exporter import metrics_app, serve_metrics
with open("imported", "a") as file:
    print(os.getpid(), file=file)
own = CollectorRegistry()
orders = Counter("orders", "Orders taken.", ["worker"], registry=own)
VERSION = 1
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        serve_metrics({port})
        serve_metrics({own_port}, registry=own)
        await send({{"type": "lifespan.startup.complete"}})
        await receive()
        await send({{"type": "lifespan.shutdown.complete"}})
        return
    if scope["path"] == "/metrics":
        return await metrics_app(scope, receive, send)
    orders.labels("till").inc()
    text = b"%d %d" % (os.getpid(), VERSION)
    await send({{"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(text))]}})
    await send({{"type": "http.response.body", "body": text}})
"""
SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
WORKER = re.compile(r'(?:^|,)worker="(\d+)"')


class Service:
    """`penstock serve` with a metrics port and one for a registry of the application's own."""

    def __init__(self, penstock: Command, ports: list[int], *options: str) -> None:
        self.port, self.metrics_port, self.own_port = ports
        self.folder = penstock.folder
        penstock.write("app.py", APP.format(port=self.metrics_port, own_port=self.own_port))
        self.process = penstock.start("serve", "app:app", "--port", str(self.port), "--limit", "100", *options)
        self.wait_for(lambda: bool(self.call()))

    def wait_for(self, condition: Callable[[], bool]) -> None:
        wait_for(lambda: not isinstance(_attempt(condition), OSError | ValueError) and condition(), self.process)

    def call(self) -> tuple[int, int]:
        """Send a request, and return the worker's process id and the application's version."""
        pid, version = get(("127.0.0.1", self.port)).rpartition(b"\r\n")[2].split()
        return int(pid), int(version)

    def scrape(self, metric: str, port: int = 0) -> dict[str, float]:
        """Return the values of a metric by worker; the key of a sum over workers is empty."""
        text = get(("127.0.0.1", port or self.metrics_port), "/metrics").decode()
        found = [(labels, float(value)) for name, labels, value in SAMPLE.findall(text) if name == metric]
        return {worker[1] if (worker := WORKER.search(labels)) else "": value for labels, value in found}

    def sum(self, metric: str, port: int = 0) -> float:
        """Return the sum over all workers, which has no label of one."""
        found = self.scrape(metric, port)
        assert set(found) == {""}
        return found[""]

    def up(self) -> dict[str, float]:
        return self.scrape("penstock_worker_up")


def _attempt(call: Callable[[], object]) -> object:
    try:
        return call()
    except (OSError, ValueError) as error:
        return error


ADMITTED = "asyncio_backpressure_admitted_total"


def both_up(service: Service) -> None:
    service.wait_for(lambda: service.up() == {"1": 1, "2": 1})


@pytest.fixture
def workers(penstock: Command, free_ports: list[int]) -> Service:
    service = Service(penstock, free_ports, "--workers", "2")
    both_up(service)
    return service


@pytest.fixture
def free_ports() -> list[int]:
    ports: set[int] = set()
    while len(ports) < 3:
        ports.add(free_port())
    return list(ports)


def test_one_scrape_has_all_workers_their_sum_is_right_and_gauges_are_apart(workers: Service) -> None:
    before = workers.sum(ADMITTED)
    pids = {workers.call()[0] for _ in range(30)}
    assert workers.sum(ADMITTED) == before + 30
    # the scrape itself is a request that the gate has let in
    assert workers.sum(ADMITTED, workers.port) == before + 31
    assert set(workers.scrape("asyncio_backpressure_permit_limit", workers.port)) == {"1", "2"}
    assert len(pids) <= 2


def test_a_registry_of_the_applications_own_is_summed_as_well_and_keeps_its_label_worker(workers: Service) -> None:
    for _ in range(20):
        workers.call()
    told = get(("127.0.0.1", workers.own_port), "/metrics")
    # and the calls of the fixture
    assert re.search(rb'^orders_total\{worker="till"\} 2\d.0$', told, re.MULTILINE)


def test_the_application_is_imported_in_no_parent(workers: Service) -> None:
    imported = {int(line) for line in (workers.folder / "imported").read_text().split()}
    assert workers.process.pid not in imported
    assert len(imported) >= 2


def test_a_worker_that_dies_leaves_its_counters_and_its_successor_takes_its_number(workers: Service) -> None:
    for _ in range(10):
        pid = workers.call()[0]
    counts = workers.sum(ADMITTED)
    os.kill(pid, signal.SIGKILL)
    workers.wait_for(lambda: pid not in children(workers.process.pid))
    assert workers.sum(ADMITTED) == counts
    both_up(workers)
    workers.call()
    assert workers.sum(ADMITTED) == counts + 1


def is_stopped(pid: int) -> bool:
    """Return whether every thread has stopped: the signalled thread stops the others when it is scheduled."""
    states = [file.read_text().rpartition(")")[2].split()[0] for file in Path(f"/proc/{pid}/task").glob("*/stat")]
    return set(states) == {"T"}


def children(pid: int) -> set[int]:
    return {int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def test_a_worker_that_hangs_counts_as_before_and_does_not_hang_the_scrape(workers: Service) -> None:
    pid = workers.call()[0]
    counts = workers.sum(ADMITTED)
    os.kill(pid, signal.SIGSTOP)
    workers.wait_for(lambda: is_stopped(pid))
    try:
        began_s = time.monotonic()
        up = workers.up()
        first_s = time.monotonic() - began_s
        assert sorted(up.values()) == [0, 1]
        missing = next(worker for worker, is_up in up.items() if not is_up)
        assert missing not in workers.scrape("asyncio_backpressure_permit_limit")
        assert workers.sum(ADMITTED) == counts
    finally:
        os.kill(pid, signal.SIGCONT)
    assert first_s < PATIENCE_S / 2
    both_up(workers)


def test_the_port_is_there_with_the_reloader_after_a_change(penstock: Command, free_ports: list[int]) -> None:
    service = Service(penstock, free_ports, "--reload")
    assert service.up() == {"1": 1}
    app = penstock.folder / "app.py"

    def is_new() -> bool:
        app.write_text(app.read_text().replace("VERSION = 1", "VERSION = 2"))
        os.utime(app)
        return service.call()[1] == 2

    service.wait_for(is_new)
    service.wait_for(lambda: service.up() == {"1": 1})
    assert service.sum(ADMITTED) >= 1


def test_a_metrics_port_in_use_is_told_to_the_application(penstock: Command, free_ports: list[int]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_ports[1]))
        taken.listen()
        penstock.write("app.py", APP.format(port=free_ports[1], own_port=free_ports[2]))
        command = "serve", "app:app", "--port", str(free_ports[0]), "--workers", "2", "--lifespan", "on"
        server = penstock.start(*command)
        output, _ = server.communicate(timeout=PATIENCE_S)
    assert f"cannot serve metrics on 127.0.0.1:{free_ports[1]}: Address already in use" in output
    assert server.returncode == 3


def test_one_process_is_as_before(penstock: Command, free_ports: list[int]) -> None:
    service = Service(penstock, free_ports)
    text = get(("127.0.0.1", service.metrics_port), "/metrics").decode()
    assert ADMITTED in text
    assert 'worker="' not in text
