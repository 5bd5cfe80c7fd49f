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

from prometheus_client import CollectorRegistry, Counter, Histogram, Info, Summary, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.openmetrics import exposition as openmetrics

from penstock.integrations.metrics import hub as metricshub
from penstock.integrations.metrics.families import from_plain, merged, plain_family, to_plain, without_summed
from penstock.integrations.metrics.hub import MetricsHub
from penstock.integrations.metrics.reporter import CHANNEL, MetricsReporter, receive, send
from penstock.integrations.metrics.totals import SeriesTotals, WorkerCounts


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


def values(page: list[list[object]], name: str) -> dict[str, float]:
    """Return the samples of a name by the label `worker`; of a sum, the label is empty."""
    samples = [sample for family in page for sample in family[4]]
    return {labels.get("worker", ""): value for found, labels, value, *_ in samples if found == name}


def up(page: list[list[object]]) -> dict[str, float]:
    return values(page, "penstock_worker_up")


def counted(count: float) -> list[object]:
    return [plain_family("jobs", "", "counter", [({}, count)]), plain_family("busy", "", "gauge", [({}, count)])]


def test_a_silent_worker_is_waited_for_once_and_its_late_answer_counts_without_its_gauges(
    hub: MetricsHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metricshub, "ANSWER_S", 0.2)
    with joined(hub, 1) as silent:
        assert up(hub.collect("own")) == {"1": 0}
        monkeypatch.setattr(metricshub, "ANSWER_S", 3600.0)
        # not waited for again
        assert up(hub.collect("own")) == {"1": 0}
        question = receive(silent)
        send(silent, {"number": question["number"], "families": counted(3)})
        thread = answering(silent, [])
        page = hub.collect("own")
        assert (up(page), values(page, "jobs_total"), values(page, "busy")) == ({"1": 1}, {"": 3}, {})
        thread.join()


def test_a_worker_that_has_ended_leaves_its_counters_and_its_number(hub: MetricsHub) -> None:
    first, second = joined(hub, 1), joined(hub, 2)
    threads = [answering(first, counted(1)), answering(second, counted(2))]
    page = hub.collect("own")
    assert (values(page, "jobs_total"), values(page, "busy")) == ({"": 3}, {"1": 1, "2": 2})
    first.close()
    with second, joined(hub, 2) as third:
        threads += [answering(second, counted(2)), answering(third, counted(10))]
        page = hub.collect("own")
        assert (values(page, "jobs_total"), values(page, "busy")) == ({"": 13}, {"1": 10, "2": 2})
        for thread in threads:
            thread.join()


def test_an_answer_counts_whose_worker_has_ended_before_it_was_read(
    hub: MetricsHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metricshub, "ANSWER_S", 0.0)
    with joined(hub, 1) as ending:
        hub.collect("own")
        send(ending, {"number": receive(ending)["number"], "families": counted(4)})
    page = hub.collect("own")
    assert (up(page), values(page, "jobs_total"), values(page, "busy")) == ({}, {"": 4}, {})


def test_the_parents_own_families_are_on_the_page_of_the_process_alone_and_may_fail(
    caplog: pytest.LogCaptureFixture,
) -> None:
    counts = [2.0]
    hub = MetricsHub(own_families=lambda: [plain_family("restarts", "", "counter", [({}, 1 / counts[0])])])
    assert values(hub.collect("own"), "restarts_total") == {"": 0.5}
    assert values(hub.collect("0"), "restarts_total") == {}
    counts[0] = 0
    assert values(hub.collect("own"), "restarts_total") == {}
    assert "ZeroDivisionError" in caplog.text
    hub.close()


def test_what_a_registry_has_survives_the_way_between_processes() -> None:
    registry = CollectorRegistry()
    Counter("jobs", "Jobs.", ["worker"], registry=registry).labels("a").inc(3)
    times = Histogram("took_seconds", "How long.", registry=registry, buckets=(0.1, float("inf")))
    times.observe(0.05, {"trace_id": "abc"})
    Summary("waited_seconds", "How long.", registry=registry).observe(2)
    Info("build", "Which.", registry=registry).info({"worker": "till", "exported_worker": "b"})
    exact = GaugeMetricFamily("exact", "A collector of the program's may give any number.", Decimal("0.5"))
    registry.register(type("Exact", (), {"collect": lambda _: [exact]})())
    sent = json.loads(json.dumps(to_plain(registry.collect())))
    totals, one, other = SeriesTotals(), WorkerCounts(), WorkerCounts()
    for worker in one, other:
        totals.account("own", sent, worker, [one, other])
    page = merged(totals.families("own"), {"1": without_summed(sent), "2": without_summed(sent)})
    there = CollectorRegistry()
    there.register(type("Merged", (), {"collect": lambda _: from_plain(page)})())
    text = generate_latest(there).decode()
    assert 'jobs_total{worker="a"} 6.0' in text
    assert 'took_seconds_bucket{le="+Inf"} 2.0' in text
    assert "waited_seconds_sum 4.0" in text
    assert 'exact{worker="1"} 0.5' in text
    assert 'build_info{exported_exported_worker="till",exported_worker="b",worker="2"} 1.0' in text
    assert text.count("# TYPE took_seconds histogram") == 1
    created = [sample.value for family in there.collect() for sample in family.samples if sample.name == "jobs_created"]
    assert created == [sample.value for sample in next(iter(registry.collect())).samples if "created" in sample.name]
    sample = next(each for family in there.collect() for each in family.samples if each.exemplar)
    assert (sample.exemplar.labels, sample.exemplar.value) == ({"trace_id": "abc"}, 0.05)
    assert openmetrics.generate_latest(there).endswith(b"# EOF\n")


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
    assert up(hub.collect("own")) == {"1": 1}
    assert "ZeroDivisionError" in caplog.text
    # a question of the worker's own has the same answer
    assert up(reporter.ask({"key": "own"})) == {"1": 1}


ENDING = """
import socket, sys
from penstock.integrations.metrics.families import plain_family
from penstock.integrations.metrics.reporter import send_last_report, start_reporter
assert not send_last_report()
start_reporter(socket.socket(fileno=int(sys.argv[1])), lambda key: [plain_family("jobs", "", "counter", [({}, 7)])])
sys.stdin.readline()
print(send_last_report(), flush=True)
"""


def started(hub: MetricsHub, program: str, *numbers: int) -> subprocess.Popen[str]:
    """Return a worker process whose channel the hub has received."""
    passed = [hub.handover.fileno(), *numbers]
    command = [sys.executable, "-W", "ignore", "-c", program, *map(str, passed)]
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=passed, text=True)
    end_s = time.monotonic() + 60
    while not hub.workers and time.monotonic() < end_s:
        time.sleep(0.005)
    return worker


def test_a_worker_that_ends_in_order_reports_what_no_scrape_has_seen(hub: MetricsHub) -> None:
    with started(hub, ENDING) as worker:
        output, _ = worker.communicate("\n")
    assert output == "True\n"
    page = hub.collect("own")
    assert (up(page), values(page, "jobs_total")) == ({}, {"": 7})


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
    try:
        with started(hub, FORKING, waits) as worker:
            assert up(hub.collect("own")) == {"1": 1}
            worker.stdin.write("\n")
            worker.stdin.flush()
            worker.wait()
            assert up(hub.collect("own")) == {}
            # its output stays open for as long as the process that it forked
            os.write(lifeline, b"-")
    finally:
        os.close(waits)
        os.close(lifeline)


def test_a_parent_that_has_ended_is_an_error_in_time(hub: MetricsHub) -> None:
    handover = hub.handover.dup()
    hub.close()
    with handover, pytest.raises(OSError):
        MetricsReporter(handover, lambda key: []).ask({"key": "own"})
