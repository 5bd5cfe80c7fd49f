"""Readings: the sources' records as values. Loops of one name are one, sites are capped, counters never fall."""

import sys
import threading

from hypothesis import given
from hypothesis import strategies as st

from penstock.telemetry.names import METRICS
from penstock.telemetry.readings import MetricReader, Sources
from penstock.telemetry.topsites import TopSites
from tests.unit.telemetry.figures import gate_of, lane_of, loop_of, site_of, times

MAIN = "main", "penstock"


def taken(*, tasks=(), lanes=None, sites=None, gates=(), sheds=None, cut=None, **how):
    sources = Sources(
        lambda: tasks, lambda: lanes or {}, lambda: sites or {}, lambda: gates, lambda: sheds or {}, lambda: cut or {}
    )
    return MetricReader(sources, **{"process": False} | how).take()


def test_a_loops_figures_are_values_by_kind_state_and_cause():
    found = taken(tasks=[loop_of()])
    assert found["asyncio.eventloop.time"] == {(*MAIN, "active"): 1.0, (*MAIN, "idle"): 3.0}
    assert found["asyncio.eventloop.utilization"] == {MAIN: 0.25}
    assert found["asyncio.eventloop.callbacks"] == {(*MAIN, "task"): 40, (*MAIN, "io"): 2}
    assert found["asyncio.eventloop.stalls"] == {(*MAIN, "gil"): 1}
    assert found["asyncio.eventloop.delay"] == {MAIN: times(0.003, 0.2)}


def test_a_loop_whose_turns_are_not_counted_is_not_called_idle():
    found = taken(tasks=[loop_of(implementation="asyncio", figures=None, created=5)])
    assert found["asyncio.task.created"] == {("main", "asyncio"): 5}
    assert not [name for name in found if name.startswith("asyncio.eventloop.")]


def test_findings_are_abandoned_tasks_or_findings_by_kind():
    findings = {"destroyed_pending": 1, "never_awaited": 2, "hung": 3, "stall": 4, "failed": 6}
    found = taken(tasks=[loop_of(lost=5, findings=findings)])
    assert found["asyncio.task.abandoned"] == {(*MAIN, "destroyed_pending"): 5, (*MAIN, "never_awaited"): 2}
    assert found["asyncio.task.findings"] == {(*MAIN, "hung"): 3, (*MAIN, "stall"): 4, (*MAIN, "failed"): 6}


def test_two_loops_of_one_name_are_one_series():
    found = taken(tasks=[loop_of(created=2, latency=times(1)), loop_of(created=3, latency=times(2), figures=None)])
    assert found["asyncio.task.created"] == {MAIN: 5}
    assert found["asyncio.task.duration"] == {MAIN: times(1, 2)}
    twice = taken(tasks=[loop_of(), loop_of()])
    assert twice["asyncio.eventloop.utilization"] == {MAIN: 0.25}


def test_a_lane_has_its_gauges_outcomes_and_bytes():
    lanes = {"main": [lane_of(workers=3, workers_busy=1, workers_limit=4, queued=2, queue_limit=10, waiting=1)]}
    found, key = taken(lanes=lanes), ("main", "cpu", "process")
    assert found["asyncio.executor.worker.count"] == {(*key, "busy"): 1, (*key, "idle"): 2}
    assert found["asyncio.executor.utilization"] == {key: 0.25}
    assert found["asyncio.executor.queue.length"] == {key: 2}
    assert found["asyncio.executor.jobs"][*key, "ok"] == 1
    assert found["asyncio.executor.transfer.io"][*key, "out", "shm"] == 4096
    assert found["asyncio.executor.queue.duration"] == {key: times(0.002)}


def test_a_gate_has_its_permits_queue_times_and_refusals():
    found = taken(gates=[gate_of(scale=0.5)])
    told = {name.removeprefix("asyncio.backpressure."): values for name, values in found.items()}
    assert told["permit.limit"] == {("api",): 8}
    assert told["permit.used"] == {("api",): 3}
    assert told["permit.scale"] == {("api",): 0.5}
    assert told["queue.length"] == {("api",): 2}
    assert told["queue.age"] == {("api",): 0.25}
    assert told["admitted"] == {("api",): 9}
    assert told["wait.duration"] == {("api",): times(0.02)}
    assert told["service.duration"] == {("api",): times(0.01, 0.03)}
    assert told["rejected"] == {("api", "wait"): 5, ("api", "limit"): 0}


def test_gates_of_one_name_are_one_series():
    found = taken(gates=[gate_of(), gate_of(queued=1, oldest_wait_s=0.5), gate_of("")])
    assert found["asyncio.backpressure.queue.length"] == {("api",): 3, ("gate",): 2}
    assert found["asyncio.backpressure.queue.age"] == {("api",): 0.5, ("gate",): 0.25}


def test_sheds_before_a_gate_are_beside_the_sheds_of_gates():
    found = taken(gates=[gate_of(), gate_of("loop")], sheds={("loop", "lag"): 26, ("loop", "wait"): 1})
    wanted = {("api", "wait"): 5, ("api", "limit"): 0, ("loop", "wait"): 6, ("loop", "limit"): 0, ("loop", "lag"): 26}
    assert found["asyncio.backpressure.rejected"] == wanted


def test_every_metric_has_a_source_and_every_value_its_attributes():
    found = taken(
        tasks=[loop_of(findings={"hung": 1})],
        lanes={"main": [lane_of(workers_limit=1)]},
        sites={"main": [site_of(1, 1)]},
        gates=[gate_of()],
        cut={"receive": 1},
        process=True,
    )
    assert found.keys() == METRICS.keys()
    for name, values in found.items():
        assert {len(attributes) for attributes in values} == {len(METRICS[name].attributes)}


# sites


def shown(top, **sites):
    return {(loop, label): counts.created for loop, label, counts in top.take(sites)}


def test_sites_beyond_the_most_are_other():
    sites = [site_of(line, created, live=1) for line, created in ((1, 10), (2, 30), (3, 20), (4, 5))]
    found = taken(sites={"main": sites}, most_sites=2)
    expected = {("main", "app:work2"): 30, ("main", "app:work3"): 20, ("main", "other"): 15}
    assert found["asyncio.task.site.created"] == expected
    assert found["asyncio.task.site.count"]["main", "other"] == 2
    assert "asyncio.task.site.created" not in taken(sites={"main": sites}, most_sites=0)


def test_a_site_that_rises_into_the_top_takes_nothing_from_other():
    top = TopSites(1)
    assert shown(top, main=[site_of(1, 10), site_of(2, 5)]) == {("main", "app:work1"): 10, ("main", "other"): 5}
    risen = shown(top, main=[site_of(1, 10), site_of(2, 100)])
    # 95 are new, and 5 stay where they were counted
    assert risen == {("main", "app:work2"): 95, ("main", "other"): 5}


def test_a_site_is_not_displaced_by_a_slightly_busier_one():
    top = TopSites(1)
    shown(top, main=[site_of(1, 10), site_of(2, 5)])
    assert ("main", "app:work1") in shown(top, main=[site_of(1, 10), site_of(2, 20)])


def test_a_loop_that_has_gone_takes_its_series_along():
    top = TopSites(1)
    shown(top, main=[site_of(1, 10), site_of(2, 5)], other=[site_of(1, 1)])
    assert {loop for loop, _ in shown(top, other=[site_of(1, 2)])} == {"other"}
    # a new loop under the old name counts from the beginning
    assert shown(top, main=[site_of(1, 3)]) == {("main", "app:work1"): 3}


ROUNDS = st.lists(st.lists(st.integers(0, 50), min_size=4, max_size=4), max_size=8)


@given(ROUNDS, st.integers(1, 3))
def test_no_series_of_a_site_ever_falls(rounds, most):
    top, made, before = TopSites(most), [0] * 4, {}
    for more in rounds:
        made = [has + new for has, new in zip(made, more, strict=True)]
        now = shown(top, main=[site_of(line, created) for line, created in enumerate(made)])
        assert len(now.keys() - {("main", "other")}) <= most
        for key in now.keys() & before.keys():
            assert now[key] >= before[key]
        before = now


def test_live_tasks_are_counted_where_they_are_shown_now():
    top = TopSites(1)
    top.take({"main": [site_of(1, 10, live=4), site_of(2, 5, live=2)]})
    found = {label: counts.live for _, label, counts in top.take({"main": [site_of(1, 10, live=1), site_of(2, 6)]})}
    assert found == {"app:work1": 1, "other": 0}


def test_the_process_has_cpu_time_and_collections():
    found = taken(process=True)
    assert found["process.cpu.time"][("user",)] > 0
    assert set(found["cpython.gc.collections"]) == {("0",), ("1",), ("2",)}
    if sys.platform == "linux":
        assert 2**20 < found["process.memory.usage"][()] < found["process.memory.virtual"][()]
        assert found["process.thread.count"][()] >= threading.active_count()
