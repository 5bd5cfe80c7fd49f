"""The parent's half of the metrics of several workers, with workers driven by hand on real sockets."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from decimal import Decimal

import pytest

pytest.importorskip("prometheus_client")

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily

from penstock.integrations.metrics import hub as metricshub
from penstock.integrations.metrics.families import from_workers, to_plain
from penstock.integrations.metrics.hub import MetricsHub
from penstock.integrations.metrics.reporter import CHANNEL, MetricsReporter, receive, send


@pytest.fixture
def hub() -> Iterator[MetricsHub]:
    made = MetricsHub()
    made.start()
    yield made
    made.close()


def joined(hub: MetricsHub, number: int) -> socket.socket:
    """Return a worker's end of a channel that the hub has received."""
    ours, parents = socket.socketpair()
    with parents:
        socket.send_fds(hub.handover, [CHANNEL], [parents.fileno()])
    end_s = time.monotonic() + 10
    while hub.workers < number:
        assert time.monotonic() < end_s
        time.sleep(0.005)
    return ours


def answering(sock: socket.socket, families: list[object]) -> threading.Thread:
    def answer() -> None:
        question = receive(sock)
        send(sock, {"number": question["number"], "families": families})

    thread = threading.Thread(target=answer)
    thread.start()
    return thread


def test_a_silent_worker_is_waited_for_once_and_its_late_answer_is_not_taken_for_a_new_one(
    hub: MetricsHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metricshub, "ANSWER_S", 0.2)
    with joined(hub, 1) as silent:
        assert hub.collect("own") == {"1": None}
        monkeypatch.setattr(metricshub, "ANSWER_S", 3600.0)
        # not waited for again
        assert hub.collect("own") == {"1": None}
        question = receive(silent)
        send(silent, {"number": question["number"], "families": [["late", "", "gauge", "", []]]})
        thread = answering(silent, [["new", "", "gauge", "", []]])
        assert hub.collect("own") == {"1": [["new", "", "gauge", "", []]]}
        thread.join()


def test_the_number_of_a_worker_that_has_ended_is_used_again(hub: MetricsHub) -> None:
    first, second = joined(hub, 1), joined(hub, 2)
    first.close()
    with second, joined(hub, 2) as third:
        threads = [answering(second, []), answering(third, [["third", "", "gauge", "", []]])]
        assert hub.collect("own") == {"1": [["third", "", "gauge", "", []]], "2": []}
        for thread in threads:
            thread.join()


def test_what_a_registry_has_survives_the_way_between_processes() -> None:
    registry = CollectorRegistry()
    Counter("jobs", "Jobs.", ["worker"], registry=registry).labels("a").inc(3)
    times = Histogram("took_seconds", "How long.", registry=registry, buckets=(0.1, float("inf")))
    times.observe(0.05, {"trace_id": "abc"})
    exact = GaugeMetricFamily("exact", "A collector of the program's may give any number.", Decimal("0.5"))
    registry.register(type("Exact", (), {"collect": lambda _: [exact]})())
    sent = json.loads(json.dumps(to_plain(registry.collect())))
    there = CollectorRegistry()
    there.register(type("Merged", (), {"collect": lambda _: from_workers({"1": sent})})())
    text = generate_latest(there).decode()
    assert 'jobs_total{exported_worker="a",worker="1"} 3.0' in text
    assert 'took_seconds_bucket{le="+Inf",worker="1"} 1.0' in text
    assert 'exact{worker="1"} 0.5' in text
    assert "# TYPE took_seconds histogram" in text
    sample = next(each for family in there.collect() for each in family.samples if each.exemplar)
    assert (sample.exemplar.labels, sample.exemplar.value) == ({"trace_id": "abc"}, 0.05)


def test_a_collector_that_raises_takes_away_the_metrics_of_its_worker_alone(
    hub: MetricsHub, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(key: str) -> list[object]:
        raise ZeroDivisionError(key)

    reporter = MetricsReporter(hub.handover, fails)
    reporter.start()
    end_s = time.monotonic() + 10
    while not hub.workers and time.monotonic() < end_s:
        time.sleep(0.005)
    assert hub.collect("own") == {"1": []}
    assert "ZeroDivisionError" in caplog.text
    # a question of the worker's own has the same answer
    assert reporter.ask({"key": "own"}) == {"1": []}


FORKING = """
import os, socket, sys
from penstock.integrations.metrics.reporter import MetricsReporter
MetricsReporter(socket.socket(fileno=int(sys.argv[1])), lambda key: []).start()
sys.stdin.readline()
if os.fork() == 0:
    os.read(int(sys.argv[2]), 1)
    os._exit(0)
os.kill(os.getpid(), 9)
"""


def test_a_worker_that_is_killed_is_gone_though_a_process_that_it_forked_lives_on(hub: MetricsHub) -> None:
    waits, lifeline = os.pipe()
    numbers = [hub.handover.fileno(), waits]
    command = [sys.executable, "-W", "ignore", "-c", FORKING, *map(str, numbers)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=numbers) as worker:
        try:
            end_s = time.monotonic() + 10
            while not hub.workers and time.monotonic() < end_s:
                time.sleep(0.005)
            assert hub.collect("own") == {"1": []}
            worker.communicate(b"\n")
            assert hub.collect("own") == {}
        finally:
            os.close(waits)
            os.close(lifeline)


def test_a_parent_that_has_ended_is_an_error_in_time(hub: MetricsHub) -> None:
    handover = hub.handover.dup()
    hub.close()
    with handover, pytest.raises(OSError):
        MetricsReporter(handover, lambda key: []).ask({"key": "own"})
